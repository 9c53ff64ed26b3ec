"""What the detectors say to people, in Chinese and English: all their sentences, in the words of the trade.

粗差 spike, 数据质量 data quality, 加速 acceleration, 渗压 pore pressure, 库水位 pond level, 共模 common mode.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import isinf
from typing import TYPE_CHECKING

from edge_rules.advice.messages import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

DISARMED = Reason(zh="该检测已停用", en="this detector is no longer armed")
HOURS_PER_DAY = 24.0


def rfc3339(t: int) -> str:
    moment = datetime.fromtimestamp(t // 10**9, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{t // 10**6 % 1000:03d}Z"


def spike(time: str, value: float, median: float, score: float, unit: str) -> Reason:
    return Reason(
        zh=f"{time} 读数 {value:g} {unit} 偏离前后中位数 {median:g} {unit} 达 {score:.1f} 倍离散度，"
        "随后两次读数恢复：疑为粗差，请检查仪器和接线",
        en=f"the reading of {time}, {value:g} {unit}, lies {score:.1f} spreads off the median "
        f"{median:g} {unit} and the next two came back: a spike; look at instrument and wiring",
    )


def spike_gone(window: int) -> Reason:
    return Reason(zh=f"连续 {window} 次读数无粗差", en=f"no spike among the last {window} readings")


def flat(count: int, hours: float, longest: int) -> Reason:
    return Reason(
        zh=f"原始读数连续 {count} 次、{hours:.1f} h 不变（此前最长 {longest} 次）：疑为仪器或采集器卡死",
        en=f"the raw count has not changed for {count} readings and {hours:.1f} h (before: {longest} "
        "at most): the sensor or its logger may be stuck",
    )


def flat_gone() -> Reason:
    return Reason(zh="原始读数恢复变化", en="the raw count changes again")


def noisy(ratio: float, *, more: bool) -> Reason:
    if more:
        return Reason(
            zh=f"相邻读数差为平时的 {ratio:.1f} 倍：请检查接线、接地和供电",
            en=f"readings jump {ratio:.1f} times as far as usual: look at wiring, earthing and supply",
        )
    return Reason(
        zh=f"相邻读数差仅为平时的 {ratio:.2f} 倍：请检查仪器是否失去响应",
        en=f"readings move only {ratio:.2f} times as far as usual: see whether the sensor still responds",
    )


def noisy_gone() -> Reason:
    return Reason(zh="读数离散恢复平常", en="the readings scatter as usual again")


def gap(hours: float, periods: float, *, dead: bool) -> Reason:
    zh, en = ("数据中断", "dead") if dead else ("数据陈旧", "stale")
    return Reason(
        zh=f"{zh}：{hours:.2g} h 无有效测值（{periods:.1f} 个采集周期），不参与旁证",
        en=f"{en}: no valid reading for {hours:.2g} h ({periods:.1f} periods); it corroborates nothing",
    )


def gap_gone() -> Reason:
    return Reason(zh="恢复有效测值", en="valid readings again")


def trend(rate: float, sd: float, limit: float, unit: str) -> Reason:
    return Reason(
        zh=f"变化速率 {rate:.3g} ± {sd:.2g} {unit}/d，超过 {limit:g} {unit}/d：请当日检查",
        en=f"moves by {rate:.3g} ± {sd:.2g} {unit}/d, beyond {limit:g} {unit}/d: inspect today",
    )


def trend_gone(rate: float, sd: float, unit: str) -> Reason:
    return Reason(
        zh=f"变化速率回落至 {rate:.3g} ± {sd:.2g} {unit}/d",
        en=f"moves by {rate:.3g} ± {sd:.2g} {unit}/d again",
    )


def step(size: float, run: int, unit: str) -> Reason:
    return Reason(
        zh=f"测值突变 {size:.3g} {unit}，连续 {run} 次读数证实：请当日检查测点与坝体",
        en=f"a step of {size:.3g} {unit}, borne out by {run} readings in a row: inspect point and dam today",
    )


def step_gone() -> Reason:
    return Reason(zh="突变后测值平稳", en="no further step since")


def onset(rate: float, fast: float, unit: str) -> Reason:
    return Reason(
        zh=f"变形加速：近期速率 {fast:.3g} {unit}/d，长期趋势 {rate:.3g} {unit}/d，已持续 3 h：请当日检查",
        en=f"the movement speeds up: {fast:.3g} {unit}/d lately against a trend of {rate:.3g} {unit}/d, for 3 h: "  # noqa: E501
        "inspect today",
    )


def onset_gone(rate: float, unit: str) -> Reason:
    return Reason(
        zh=f"变形不再加速，速率 {rate:.3g} {unit}/d；不加速不等于安全",
        en=f"the movement no longer speeds up, {rate:.3g} {unit}/d; that alone is no proof of safety",
    )


def forecast(soon: float, median: float, late: float) -> Reason:
    upto = "> 2000" if isinf(late) else f"{late:.0f}"
    return Reason(
        zh=f"若按当前加速规律发展，失稳可能在 {soon:.0f} 至 {upto} h 之间（90 % 区间，中位 {median:.0f} h）：请立即检查并通知人员",  # noqa: E501
        en=f"if the movement goes on speeding up as it does, failure may come between {soon:.0f} and {upto} h from "  # noqa: E501
        f"now (90 % interval, median {median:.0f} h): inspect now and call people",
    )


def forecast_gone() -> Reason:
    return Reason(
        zh="按现有数据不再推算近期失稳；不等于安全",
        en="the data no longer point to a failure soon; that alone is no proof of safety",
    )


def response(measured: float, expected: float, sd: float, z: float, unit: str) -> Reason:
    zh, en = ("高于", "above") if z > 0 else ("低于", "below")
    return Reason(
        zh=f"渗压 {measured:.4g} {unit} {zh}由降雨和库水位推算的 {expected:.4g} ± {sd:.2g} {unit}：属坝体性状变化，"  # noqa: E501
        "非仪器故障，请立即检查渗流与排水",
        en=f"the pressure, {measured:.4g} {unit}, stands {en} the {expected:.4g} ± {sd:.2g} {unit} that rain and "  # noqa: E501
        "pond level explain: the dam behaves otherwise than before; inspect seepage and drains now",
    )


def response_gone(measured: float, expected: float, unit: str) -> Reason:
    return Reason(
        zh=f"渗压 {measured:.4g} {unit} 恢复到推算值 {expected:.4g} {unit} 附近",
        en=f"the pressure, {measured:.4g} {unit}, is near the expected {expected:.4g} {unit} again",
    )


def common(domain: str, members: Sequence[str], part: float, unit: str) -> Reason:
    return Reason(
        zh=f"同一故障域 {domain} 的 {len(members)} 个测点同时偏移 {part:.3g} {unit}：基准站（公共设备）或整个坝体在动，"  # noqa: E501
        "请当日核查基准",
        en=f"all {len(members)} channels of {domain} are off by {part:.3g} {unit} at once: what they share moves, "  # noqa: E501
        "or the whole dam does; verify the reference today",
    )


def common_gone(domain: str) -> Reason:
    return Reason(zh=f"{domain} 共模偏移消失", en=f"{domain}: no common offset any more")


def corroborated(points: Sequence[str], live: int, section: str) -> Reason:
    names = "、".join(points)
    return Reason(
        zh=f"{section} 断面 {live} 个有效测点中 {len(points)} 个独立测点异常（{names}），相互印证：请立即检查",  # noqa: E501
        en=f"section {section}: {len(points)} of {live} live monitoring points agree ({', '.join(points)}), "
        "independently of each other: inspect now",
    )


def corroborated_gone(section: str) -> Reason:
    return Reason(
        zh=f"{section} 断面不再有两个独立测点同时异常",
        en=f"section {section}: no two independent monitoring points agree any more",
    )
