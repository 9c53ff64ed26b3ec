// What the page says, in both languages; names of faults and instruments come from the bench.

export const WORDS = {
  zh: {
    bench: "试验台", daemon: "采集程序", platform: "平台", true: "真实", believed: "采集程序所见", scenario: "情景",
    live: "回到现在", alarms: "报警", by: "确认人", technician: "技术员", break: "制造故障", wires: "线路报文",
    repair: "全部修复", acknowledge: "确认", quiet: "没有报警", none: "无预警", blue: "蓝色", yellow: "黄色",
    orange: "橙色", red: "红色", fault: "故障", advice: "提示", gone: "已恢复", unknown: "无法判断",
    acknowledged: "已确认", assigned: "已指派", handled: "已处置", good: "良好", waiting: "等待读数",
    section: "坝体剖面", plan: "位移平面图", strip: "降雨与库水位", slider: "时间滑块", theme: "明暗", now: "现在",
    past: "回看", asOfNow: "（现在的）", other: "English", cut: "与试验台的连接断开，正在重连", away: "采集程序未运行：只显示真实状态",
    quietLine: "尚无报文", well: "正常", minutes: "min 前", pond: "%预警", crest: "坝顶", north: "北",
    sketch: "示意图，竖向放大", basin: "库水", beach: "干滩", starter: "初期坝", raised: "堆积坝", bedrock: "基岩",
    rain: "雨强", level: "库水位", upTo: "最大",
  },
  en: {
    bench: "bench", daemon: "daemon", platform: "platform", true: "true", believed: "what the daemon sees",
    scenario: "Scenario", live: "Back to now", alarms: "Alarms", by: "by", technician: "technician",
    break: "Break it", wires: "Wires", repair: "Repair all", acknowledge: "Acknowledge", quiet: "No alarm",
    none: "no warning", blue: "blue", yellow: "yellow", orange: "orange", red: "red", fault: "fault",
    advice: "advice", gone: "gone", unknown: "unknown", acknowledged: "acknowledged", assigned: "assigned",
    handled: "handled", good: "good", waiting: "no reading yet", section: "Cross-section of the dam",
    plan: "Displacement from above", strip: "Rain and pond level", slider: "Time", theme: "Light or dark",
    now: "now", past: "looking back", asOfNow: "(as of now)", other: "中文", cut: "The bench is out of reach; trying again",
    away: "No daemon is running: only the truth is shown", quietLine: "nothing passed yet", well: "well",
    minutes: "min ago", pond: "% warning", crest: "crest", north: "N",
    sketch: "sketch, heights exaggerated", basin: "pond", beach: "dry beach", starter: "starter dam",
    raised: "raised dam", bedrock: "bedrock", rain: "rain", level: "pond level", upTo: "at most",
  },
};

// Reasons of a reading's quality, as docs/quality.md has them; in English they are shown as the daemon writes
// them, but for those that say nothing to a technician.
export const QUALITY = {
  zh: {
    "gnss-float": "卫星定位浮点解", "no-temperature": "缺温度修正", "uncertain-input": "输入可疑", "counter-reset": "计数器复位",
    "maintenance": "检修中", "degraded": "设备自报降级", "clock": "时钟不可信", "base-changed": "基准站更换",
    "frozen": "雨量计可能结冰", "neighbour": "与邻近雨量计不符", "manual": "人工补测", "old-constants": "常数过期",
    "no-reply": "设备无应答", "bad-reply": "应答无效", "refused": "设备拒绝请求", "busy": "设备忙",
    "line-down": "通信线路中断", "sentinel": "设备报告无测值", "not-a-number": "测值不是数", "sensor-fault": "传感器故障",
    "no-fix": "卫星定位无解", "out-of-span": "测值超出量程", "missing-input": "缺少输入", "below-tip": "水位低于仪器",
    "overrun": "线路来不及", "counter-step": "计数跳变过大", "back-off": "暂不询问",
  },
  en: { "back-off": "silent", "missing-input": "input missing", "counter-step": "counter jumped" },
};
