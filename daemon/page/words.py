"""What the page says, in Chinese and English; the site's own names stand as they are."""

from __future__ import annotations

from typing import Final, Literal

Language = Literal["zh", "en"]

WORDS: Final[dict[str, tuple[str, str]]] = {
    "title": ("尾矿库在线监测", "Tailings pond monitoring"),
    "gateway": ("网关", "gateway"),
    "as_of": ("截至", "as of"),
    "other": ("English", "中文"),
    "none": ("正常", "none"),
    "blue": ("蓝色", "blue"),
    "yellow": ("黄色", "yellow"),
    "orange": ("橙色", "orange"),
    "red": ("红色", "red"),
    "displacement": ("位移", "Displacement"),
    "phreatic-line": ("浸润线", "Phreatic line"),
    "pore-pressure": ("孔隙水压力", "Pore pressure"),
    "rainfall": ("降雨量", "Rainfall"),
    "pond-level": ("库水位", "Pond level"),
    "dry-beach": ("干滩", "Dry beach"),
    "seepage-flow": ("渗流量", "Seepage flow"),
    "turbidity": ("浑浊度", "Turbidity"),
    "landslide": ("滑坡", "Landslide"),
    "weather": ("气象", "Weather"),
    "health": ("设备状态", "Health"),
    "section": ("断面", "Section"),
    "even": ("测点水平位置未录入，按等距绘制", "positions are not in the site file: points drawn evenly"),
    "elevation": ("高程 m", "elevation, m"),
    "last_day": ("过去 24 小时", "the last 24 hours"),
    "per_hour": ("小时雨量 mm", "rain in each hour, mm"),
    "no_history": ("存储中没有过去 24 小时的数据", "the store has nothing of the last 24 hours"),
    "vectors": ("水平位移", "Horizontal displacement"),
    "north": ("北", "N"),
    "downstream": ("下游", "downstream"),
    "east_mm": ("东", "east"),
    "north_mm": ("北", "north"),
    "up_mm": ("竖向", "up"),
    "alarms": ("未关闭的报警", "Open alarms"),
    "no_alarm": ("没有未关闭的报警", "no alarm is open"),
    "overdue": ("逾期", "overdue"),
    "level": ("级别", "level"),
    "reason": ("原因", "reason"),
    "state": ("状态", "state"),
    "since": ("时间", "time"),
    "due": ("处置期限", "due"),
    "who": ("处置人", "by"),
    "present": ("存在", "present"),
    "gone": ("已消失", "gone"),
    "unknown": ("未知", "unknown"),
    "new": ("未确认", "new"),
    "acknowledged": ("已确认", "acknowledged"),
    "assigned": ("已派单", "assigned"),
    "handled": ("已处置", "handled"),
    "fault": ("故障", "fault"),
    "advice": ("建议", "advice"),
    "system": ("系统", "system"),
    "lines": ("线路与设备", "Lines and devices"),
    "line": ("线路", "line"),
    "kind": ("类型", "kind"),
    "busy": ("占用", "busy"),
    "answers": ("正常应答", "answer"),
    "silent": ("无应答", "silent"),
    "not_yet": ("尚未轮询", "not polled yet"),
    "delivery": ("上传与存储", "Delivery and store"),
    "connected": ("已连接", "connected"),
    "away": ("未连接", "not connected"),
    "unsettled": ("待确认批次", "batches to settle"),
    "oldest": ("最早的已等待", "oldest waits"),
    "store": ("本地存储", "store"),
    "days_left": ("断网可持续天数", "days an outage may last"),
    "clock": ("时钟", "clock"),
    "trusted": ("可信", "trusted"),
    "not_trusted": ("不可信", "not trusted"),
    "readings": ("全部测点", "All channels"),
    "channel": ("通道", "channel"),
    "point": ("测点", "point"),
    "item": ("监测项目", "item"),
    "value": ("测值", "value"),
    "quality": ("质量", "quality"),
    "margin": ("距下一限值", "to the next limit"),
    "good": ("良好", "good"),
    "uncertain": ("存疑", "uncertain"),
    "bad": ("无效", "bad"),
    "never": ("尚无测值", "no reading yet"),
    "drill": ("演练中", "Drill under way"),
    "maintained": ("检修中", "Under maintenance"),
    "muted": ("已静音", "Sound muted"),
    "until": ("至", "until"),
    "mode_test": ("测试模式：不是真实数据", "Test mode: these are not real data"),
    "mode_simulated": ("模拟数据：不是真实的库", "Simulated: this is no real pond"),
    "shadow": (
        "试运行（影子）模式：照常判断并记录，输出不动作，不呼叫人员",
        "Shadow: all is judged and recorded, no output moves, nobody is called",
    ),
    "no_core": (
        "采集程序没有应答，下面没有当前数据",
        "The core does not answer: nothing below is of this moment",
    ),
    "ill": ("采集程序异常", "The core is not well"),
    "grade": ("等别", "grade"),
    "wet": ("湿式库", "wet pond"),
    "dry": ("干式堆存", "dry stack"),
    "limits": (
        "限值由设计单位给定；本页只读，不能代替现场巡查。",
        "Limits are the designer's. This page only shows; it does not replace a patrol.",
    ),
}


class Say:
    """The page's words in one language: `say("red")`."""

    def __init__(self, language: Language) -> None:
        self.language: Language = language
        self._at = 0 if language == "zh" else 1

    def __call__(self, word: str) -> str:
        return WORDS[word][self._at] if word in WORDS else word

    def either(self, zh: str, en: str) -> str:
        return (zh, en)[self._at]
