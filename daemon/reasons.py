"""The sentences that alarms carry, in Chinese and English: all of them here, in the words of the trade.

预警阈值 trigger level, 预警 dam warning, 故障报警 device fault. 解除 (close) is what a person does, so of a
condition that went by itself we say 恢复. Items as in GB 39496-2020 5.5.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from drivers.sample import Quality

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVEL_ZH = {"none": "无", "blue": "蓝色", "yellow": "黄色", "orange": "橙色", "red": "红色"}

ITEM_ZH = {
    "displacement": "坝体位移",
    "phreatic-line": "浸润线",
    "pore-pressure": "孔隙水压力",
    "rainfall": "降水量",
    "pond-level": "库水位",
    "dry-beach": "干滩",
    "seepage-flow": "渗流量",
    "turbidity": "浑浊度",
    "landslide": "库区滑坡体位移",
    "weather": "气象",
    "health": "设备状态",
}

FAULT_ZH: Mapping[Quality, str] = {
    Quality.NO_REPLY: "设备无应答",
    Quality.BAD_REPLY: "应答无效",
    Quality.REFUSED: "设备拒绝请求",
    Quality.BUSY: "设备忙",
    Quality.LINE_DOWN: "通信线路中断",
    Quality.SENTINEL: "设备报告无测值",
    Quality.NOT_A_NUMBER: "测值不是数",
    Quality.SENSOR_FAULT: "传感器故障",
    Quality.NO_FIX: "卫星定位无解",
    Quality.OUT_OF_SPAN: "测值超出量程",
}


class Reason(msgspec.Struct, frozen=True, gc=False):
    """Why, as a sentence for people."""

    zh: str
    en: str


def level_present(
    point: str, item: str, level: str, value: float, limit: float, unit: str, *, unverified: bool = False
) -> Reason:
    """A quantity stands at or beyond a trigger level; `unverified`: its value is uncertain."""
    zh, en = ("（未核实）", ", unverified") if unverified else ("", "")
    return Reason(
        f"{point} {ITEM_ZH[item]}{LEVEL_ZH[level]}预警{zh}：测值 {value:.6g} {unit}，"
        f"预警阈值 {limit:.6g} {unit}",
        f"{point} {item}: {level}{en}, {value:.6g} {unit} against the trigger level {limit:.6g} {unit}",
    )


def level_gone(point: str, item: str, value: float, unit: str) -> Reason:
    """A quantity is back within its trigger levels."""
    return Reason(
        f"{point} {ITEM_ZH[item]}测值恢复到预警阈值以内：{value:.6g} {unit}",
        f"{point} {item}: back within its trigger levels, {value:.6g} {unit}",
    )


def level_unknown(point: str, item: str, quality: Quality) -> Reason:
    """A quantity under alarm can no longer be measured."""
    return Reason(
        f"{point} {ITEM_ZH[item]}无有效测值（{FAULT_ZH.get(quality, quality.text)}），预警是否持续未知",
        f"{point} {item}: no valid value ({quality.text}), whether the alarm still holds is unknown",
    )


def item_present(pond: str, item: str, level: str, points: Mapping[str, int]) -> Reason:
    """An item's level, with how many of its monitoring points stand at each level."""
    zh = "，".join(f"{LEVEL_ZH[name]} {count} 点" for name, count in points.items() if count)
    en = ", ".join(f"{count} {name}" for name, count in points.items() if count)
    return Reason(
        f"{pond} {ITEM_ZH[item]}{LEVEL_ZH[level]}预警：{zh}", f"{pond} {item}: {level}, points: {en}"
    )


def item_gone(pond: str, item: str) -> Reason:
    return Reason(
        f"{pond} {ITEM_ZH[item]}各监测点恢复到预警阈值以内",
        f"{pond} {item}: no monitoring point is at a level",
    )


def pond_present(pond: str, level: str, items: Mapping[str, str]) -> Reason:
    """A pond's level, with the level of each of its items."""
    zh = "，".join(f"{ITEM_ZH[item]}{LEVEL_ZH[its]}" for item, its in items.items() if its != "none")
    en = ", ".join(f"{item} {its}" for item, its in items.items() if its != "none")
    return Reason(f"{pond} {LEVEL_ZH[level]}预警：{zh}", f"{pond}: {level}, items: {en}")


def pond_gone(pond: str) -> Reason:
    return Reason(f"{pond} 各监测项目无预警", f"{pond}: no item is at a level")


def fault_present(device: str, quality: Quality) -> Reason:
    """A device or line does not work."""
    return Reason(
        f"{device} 故障报警：{FAULT_ZH.get(quality, quality.text)}", f"{device} fault: {quality.text}"
    )


def fault_gone(device: str, silent_s: float) -> Reason:
    return Reason(f"{device} 恢复正常，中断 {silent_s:.0f} s", f"{device} works again after {silent_s:.0f} s")


def quarantined(uplink: str, seq: int, why: str) -> Reason:
    """An uplink refuses a batch for good."""
    return Reason(
        f"上传通道 {uplink} 拒收第 {seq} 批数据（{why}），已隔离保存，不再重发",
        f"uplink {uplink} will not take batch {seq} ({why}): it is kept, and not sent again by itself",
    )


def siren_sounds(output: str, by: str, until: str) -> Reason:
    """The authority has a public siren sound."""
    return Reason(
        f"公共警报器 {output} 按 {by} 的签名指令鸣响，至 {until}",
        f"public siren {output} sounds by signed request of {by} until {until}",
    )


def siren_silent(output: str) -> Reason:
    """It no longer does."""
    return Reason(f"公共警报器 {output} 已停止", f"public siren {output} is silent")


def site_file_bad(mistake: str) -> Reason:
    """The site file cannot be used; the last good one is."""
    return Reason(
        f"配置文件有误，继续使用上一份有效配置：{mistake}",
        f"the site file has mistakes, the last good one stays in use: {mistake}",
    )


def site_file_good() -> Reason:
    return Reason("配置文件无误", "the site file has no mistakes")


def store_in_memory(error: str) -> Reason:
    """The disk under the store cannot be used."""
    return Reason(
        f"本地存储不可用（{error}），数据暂存内存，断电将丢失；监测、预警与上传继续进行",
        f"the store cannot be used ({error}): batches stand in memory and a power cut would lose them; "
        "measuring, judging and forwarding go on",
    )


def store_back() -> Reason:
    return Reason("本地存储已恢复", "the store is on its disk again")


# -- levels and people -------------------------------------------------------------------------------


def red_latched(point: str, item: str, value: float, unit: str, roles: str) -> Reason:
    """Red was reached; what is measured now lies below it, and red stays until it is closed."""
    return Reason(
        f"{point} {ITEM_ZH[item]}红色预警保持：现测值 {value:.6g} {unit} 已不到红色，须复测后由 {roles} 解除",
        f"{point} {item}: red is held, {value:.6g} {unit} now; to be closed by {roles} after re-measurement",
    )


def manual_gone(point: str, item: str, value: float, unit: str, by: str) -> Reason:
    """A person's reading shows that a level no longer holds."""
    return Reason(
        f"{point} {ITEM_ZH[item]}人工测值 {value:.6g} {unit}（{by}），在预警阈值以内",
        f"{point} {item}: {value:.6g} {unit} by hand ({by}), within its trigger levels",
    )


def manual_differs(
    point: str, item: str, by_hand: float, automatic: float, tolerance: float, unit: str
) -> Reason:
    """Comparison (比测) out of tolerance."""
    return Reason(
        f"{point} {ITEM_ZH[item]}比测超差：人工 {by_hand:.6g} {unit}，自动 {automatic:.6g} {unit}，"
        f"允许 {tolerance:.6g} {unit}",
        f"{point} {item}: {by_hand:.6g} {unit} by hand, {automatic:.6g} {unit} by the instrument, "
        f"further apart than {tolerance:.6g} {unit}",
    )


def manual_agrees(point: str, item: str) -> Reason:
    return Reason(f"{point} {ITEM_ZH[item]}比测合格", f"{point} {item}: reading by hand and instrument agree")


def patrol_abnormal(place: str, by: str, found: str) -> Reason:
    """What a patrol saw."""
    return Reason(f"{place} 巡查异常（{by}）：{found}", f"{place}: the patrol of {by} found: {found}")


# -- sections ----------------------------------------------------------------------------------------


def section_blind(section: str, live: int, needed: int) -> Reason:
    """Too few monitoring points of a section can be seen."""
    return Reason(
        f"{section} 断面监测失明：有效监测点 {live} 个，少于 {needed} 个，请当日巡查",
        f"section {section} is blind: only {live} of {needed} monitoring points are seen; inspect today",
    )


def section_seen(section: str) -> Reason:
    return Reason(f"{section} 断面监测恢复", f"section {section} is seen again")


def manual_wanted(section: str, within_min: float) -> Reason:
    """A blind section in orange rain."""
    return Reason(
        f"{section} 断面监测失明且降雨达橙色：请在 {within_min:.0f} 分钟内人工补测",
        f"section {section} is blind in orange rain: a manual reading is wanted within {within_min:.0f} min",
    )


def manual_no_longer_wanted(section: str) -> Reason:
    return Reason(
        f"{section} 断面不再需要人工补测", f"section {section}: no manual reading is wanted any more"
    )


# -- water -------------------------------------------------------------------------------------------


def rain_present(pond: str, level: str, because: str) -> Reason:
    """The rain level, and the highest thing that makes it."""
    return Reason(
        f"{pond} 降雨{LEVEL_ZH[level]}：{because}",
        f"{pond} rain: {level}, {because}",
    )


_WARNING_OF = {"storm": ("气象", "weather"), "earthquake": ("地震", "earthquake")}


def warning_present(pond: str, of: str, level: str, source: str, until: str, text: str) -> Reason:
    """A platform warns; `until` is local, `text` its own words."""
    zh, en = (f"：{text}", f": {text}") if text else ("", "")
    of_zh, of_en = _WARNING_OF[of]
    return Reason(
        f"{pond} {of_zh}{LEVEL_ZH[level]}预警（{source} 发布，至 {until}）{zh}",
        f"{pond} {of_en}: {level} warning of {source} until {until}{en}",
    )


def warning_over(pond: str, of: str, source: str, *, withdrawn: bool) -> Reason:
    zh, en = ("解除", "was taken back") if withdrawn else ("到期", "has ended")
    of_zh, of_en = _WARNING_OF[of]
    return Reason(f"{pond} {source} 发布的{of_zh}预警已{zh}", f"{pond} {of_en}: the warning of {source} {en}")


def rain_gone(pond: str) -> Reason:
    return Reason(f"{pond} 降雨等级解除条件已满足", f"{pond} rain: below every mark")


def rain_unknown(pond: str) -> Reason:
    return Reason(
        f"{pond} 雨量计无有效测值，降雨等级未知", f"{pond} rain: no gauge can be read, its level is unknown"
    )


def rain_intense(pond: str, hours: str) -> Reason:
    """Caine's curve of intensity and duration."""
    return Reason(
        f"{pond} 降雨强度历时超过参考曲线（{hours} h），请关注坝坡",
        f"{pond} rain: intensity beyond Caine's curve over {hours} h; watch the slopes",
    )


def stop_and_withdraw(pond: str, level: str) -> Reason:
    return Reason(
        f"{pond} 降雨{LEVEL_ZH[level]}：建议停产撤人，加强巡查，暴雨中不得放矿",
        f"{pond} rain is {level}: stop production and withdraw people; no discharge in the storm",
    )


def stop_over(pond: str) -> Reason:
    return Reason(f"{pond} 停产撤人建议取消", f"{pond}: the advice to stop and withdraw is over")


def limits_run_out(pond: str, until: str, *, valid: bool) -> Reason:
    """Operating limits end soon, or have ended."""
    if valid:
        return Reason(
            f"{pond} 库水位运行限值 {until} 到期，请在汛期前更新",
            f"{pond}: the operating limits of the pond's level end on {until}; renew them",
        )
    return Reason(
        f"{pond} 库水位运行限值已于 {until} 到期，暂按原限值判别，请立即更新",
        f"{pond}: the operating limits ended on {until} and are still used; renew them now",
    )


def limits_renewed(pond: str) -> Reason:
    return Reason(f"{pond} 库水位运行限值有效", f"{pond}: operating limits are in force")


# -- stations, outputs, modes ------------------------------------------------------------------------


def stations_missing(devices: list[str], quality: Quality) -> Reason:
    """Several devices fell silent together."""
    count, names = len(devices), ", ".join(devices)
    return Reason(
        f"{count} 个测站故障报警（{FAULT_ZH.get(quality, quality.text)}）：{names}",
        f"{count} stations missing: {names}",
    )


def stations_back() -> Reason:
    return Reason("测站全部恢复正常", "all stations answer again")


def output_fault(output: str, error: str) -> Reason:
    """A siren or relay does not follow."""
    return Reason(f"{output} 输出故障报警：{error}", f"output {output} does not follow: {error}")


def output_well(output: str) -> Reason:
    return Reason(f"{output} 输出恢复正常", f"output {output} follows again")


def drill(pond: str, level: str, by: str) -> Reason:
    """A rehearsal."""
    return Reason(
        f"演练：{pond} {LEVEL_ZH[level]}预警（{by} 发起），非真实预警",
        f"drill: {pond} {level}, started by {by}; this is no real alarm",
    )


def drill_over(pond: str, why: str) -> Reason:
    said = {
        "ended": ("演练结束", "is over"),
        "overridden": ("被真实预警终止", "was overridden by a real alarm"),
    }
    zh, en = said[why]
    return Reason(f"演练：{pond} {zh}", f"drill: {pond}: it {en}")
