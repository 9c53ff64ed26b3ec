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


def level_present(point: str, item: str, level: str, value: float, limit: float, unit: str) -> Reason:
    """A quantity stands at or beyond a trigger level."""
    return Reason(
        f"{point} {ITEM_ZH[item]}{LEVEL_ZH[level]}预警：测值 {value:.6g} {unit}，预警阈值 {limit:.6g} {unit}",
        f"{point} {item}: {level}, {value:.6g} {unit} against the trigger level {limit:.6g} {unit}",
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
