"""What Prometheus and Grafana are given: every rule fires when it should, every expression names what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from daemon.metrics import Metrics
from tests.system.running import PATH, ROOT
from tests.test_readme import metrics_rows, quoted, slug, table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROMTOOL = shutil.which("promtool", path=PATH)
RULES = ROOT / "config/prometheus/pondwatch.rules.yml"
UNIT_TESTS = ROOT / "config/prometheus/pondwatch.rules.test.yml"
DASHBOARDS = sorted((ROOT / "config/grafana").glob("*.json"))
PAGE = (ROOT / "docs/watching.md").read_text()

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus"
)


def promtool(*words: str, folder: Path) -> str:
    done = subprocess.run(
        [str(PROMTOOL), *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> dict[str, str]:
    """Name of each alert -> what its rule says."""
    parts = re.split(r"^      - alert: (\w+)$", RULES.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def series(expression: str) -> set[str]:
    """Every metric that an expression names."""
    return set(re.findall(r"\bpondwatch_\w+", re.sub(r'"[^"]*"', '""', expression)))


def declared() -> set[str]:
    """Every series that the code declares."""
    names = {quoted(row[0])[0] for row in metrics_rows()}
    histograms = {quoted(row[0])[0] for row in metrics_rows() if row[2].endswith("(histogram)")}
    return names | {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}


# -- rules -------------------------------------------------------------------------------------------


@needs_promtool
@pytest.mark.peer
def test_promtool_finds_no_fault_in_the_configuration_and_its_rules() -> None:
    assert f"{len(alerts())} rules found" in promtool(
        "check", "config", "prometheus.yml", folder=RULES.parent
    )


@needs_promtool
@pytest.mark.peer
def test_every_rule_fires_in_its_time_and_not_before_and_is_silent_while_all_is_well() -> None:
    assert "SUCCESS" in promtool("test", "rules", UNIT_TESTS.name, folder=RULES.parent)


@needs_promtool
@pytest.mark.peer
def test_a_rule_that_never_fires_would_be_found(tmp_path: Path) -> None:
    """All are dead at once: each has a unit test of its own, which must be among those that fail."""
    (tmp_path / UNIT_TESTS.name).write_text(UNIT_TESTS.read_text())
    dead = re.sub(r"expr: .*", "expr: vector(1) < 0", RULES.read_text())
    assert dead.count("vector(1) < 0") == len(alerts())
    (tmp_path / RULES.name).write_text(dead)
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", UNIT_TESTS.name],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    for name in alerts():
        assert f"name: {name.removeprefix('Pondwatch')} fires" in done.stdout + done.stderr, name


def test_every_rule_has_its_two_unit_tests() -> None:
    text = UNIT_TESTS.read_text()
    for name in alerts():
        short = name.removeprefix("Pondwatch")
        assert f"  - name: {short} fires\n" in text
        assert f"  - name: {short} is silent while all is well\n" in text


def test_every_rule_names_metrics_that_the_code_declares() -> None:
    for name, rule in alerts().items():
        expression = re.findall(r"expr: (.*)", rule)[0]
        assert series(expression) <= declared(), name
        assert series(expression) or "up{" in expression


def test_every_rule_is_explained_and_points_to_a_page_that_is_there() -> None:
    rows = table(PAGE, "alert")
    assert [quoted(row[0])[0] for row in rows] == list(alerts())
    for name, rule in alerts().items():
        described = re.findall(r"description: (.*)", rule)[0]
        for page in re.findall(r"docs/[\w-]+\.md", described):
            assert (ROOT / page).exists(), name
        for heading in re.findall(r'docs/troubleshooting\.md, \\"([^"\\]+)\\"', described):
            headings = re.findall(r"^## (.*)$", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
            assert slug(heading) in {slug(each) for each in headings}, heading


# -- metrics -----------------------------------------------------------------------------------------


def test_the_page_of_metrics_has_each_with_its_type_and_labels_as_the_code_declares_them() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    types = dict(re.findall(r"^# TYPE (\S+) (\w+)$", Metrics("0", "0").text().decode(), re.MULTILINE))
    rows = {quoted(row[0])[0]: row for row in table(page, "name")}
    assert set(rows) == {quoted(row[0])[0] for row in metrics_rows()}
    for name, labels, meaning in metrics_rows():
        row = rows[quoted(name)[0]]
        assert row[1] == types[quoted(name)[0]]
        assert row[2] == labels
        assert row[3] == meaning.removesuffix(" (histogram)")
        assert row[4], "what to look for"


# -- dashboards --------------------------------------------------------------------------------------


def dashboard(path: Path) -> Any:
    return json.loads(path.read_text())


def panels(path: Path) -> Iterator[dict[str, Any]]:
    yield from dashboard(path)["panels"]


def expressions(path: Path) -> Iterator[str]:
    for panel in panels(path):
        yield from (target["expr"] for target in panel.get("targets", []))


def variables(path: Path) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in dashboard(path)["templating"]["list"]}


def test_there_are_two_dashboards() -> None:
    assert [path.name for path in DASHBOARDS] == ["operations.json", "pond.json"]
    assert len({dashboard(path)["uid"] for path in DASHBOARDS}) == 2


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_has_what_an_import_asks_for(path: Path) -> None:
    """No Grafana is packaged in Debian: the members are those of its dashboard JSON model, schema 38."""
    board = dashboard(path)
    assert {"uid", "title", "panels", "templating", "time", "schemaVersion", "tags"} <= set(board)
    assert "id" not in board  # the importing Grafana gives it
    ids = [panel["id"] for panel in panels(path)]
    assert len(ids) == len(set(ids))
    for panel in panels(path):
        if panel["type"] == "row":
            continue
        assert panel["type"] in {"stat", "timeseries", "state-timeline", "bargauge"}
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"]
        assert {"defaults", "overrides"} == set(panel["fieldConfig"])
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(refs) == len(set(refs))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_no_panel_lies_on_another_or_beyond_the_edge(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels(path):
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_expression_names_documented_metrics_their_labels_and_the_dashboards_variables(
    path: Path,
) -> None:
    documented = {quoted(row[0])[0]: set(quoted(row[1])) for row in metrics_rows()}
    for expression in expressions(path):
        named = series(expression)
        assert named
        assert named <= declared(), expression
        for name, matchers in re.findall(r"(pondwatch_\w+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+)=", matchers)) - {"instance"}
            assert labels <= documented[re.sub(r"_(bucket|sum|count)$", "", name)], expression
        for variable in re.findall(r"\$(\w+)", expression):
            assert variable in variables(path) or variable == "__rate_interval", expression


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_variable_asks_for_a_label_that_there_is(path: Path) -> None:
    documented = {quoted(row[0])[0]: set(quoted(row[1])) for row in metrics_rows()}
    for variable in variables(path).values():
        if variable["type"] == "query":
            name, label = re.findall(r"label_values\((\w+)[^)]*, (\w+)\)", variable["query"]["query"])[0]
            assert label in documented[name] | {"instance"}


def test_every_metric_is_on_a_dashboard() -> None:
    shown = set().union(*(series(each) for path in DASHBOARDS for each in expressions(path)))
    plain = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert {quoted(row[0])[0] for row in metrics_rows()} <= plain


@needs_promtool
@pytest.mark.peer
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_promtool_understands_every_expression(path: Path, tmp_path: Path) -> None:
    rules = [
        f"      - record: panel:{n}\n        expr: {json.dumps(each.replace('$__rate_interval', '5m'))}\n"
        for n, each in enumerate(expressions(path))
    ]
    (tmp_path / "rules.yml").write_text("groups:\n  - name: panels\n    rules:\n" + "".join(rules))
    assert f"{len(rules)} rules found" in promtool("check", "rules", "rules.yml", folder=tmp_path)
