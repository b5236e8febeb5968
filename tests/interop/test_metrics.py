"""What `/metrics` says after jobs of every outcome, as the parser of another project reads it, and each query of the dashboard.

A query that names a metric, a label or a value which no server has would draw nothing, and nobody would be told.
"""

import json
import re
import urllib.request

import promql_parser
import pytest
from client import TIMEOUT, Job, refused, simulate, start, status, watch
from conftest import ROOT, until
from google.protobuf import json_format
from longhaul.v1 import job_service_pb2
from prometheus_client.openmetrics.parser import text_string_to_metric_families

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
DASHBOARD = json.loads((ROOT / "deploy/grafana/longhaul.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if "targets" in panel]
QUERIES = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
SCRAPED = {"instance", "job"}
"""The labels that Prometheus adds to all that it scrapes."""
KINDS = 120
"""How many kinds there are that nobody runs: more than may have a label."""
LABELLED = 80
"""How many have one while no worker begins a job of any other."""


class Figures:
    """What one scrape has brought."""

    def __init__(self, server):
        request = urllib.request.Request(f"http://{server.address}/metrics", headers={"Accept": OPENMETRICS})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            self.content_type = response.headers["Content-Type"]
            self.text = response.read().decode()
        self.families = {family.name: family for family in text_string_to_metric_families(self.text)}
        self.samples = {}
        for family in self.families.values():
            for sample in family.samples:
                self.samples.setdefault(sample.name, []).append(sample)

    def value(self, name, **labels):
        """The value of a series, by all of its labels."""
        found = [sample.value for sample in self.samples[name] if sample.labels == labels]
        assert len(found) == 1, f"{name} {labels}: {found}"
        return found[0]

    def values(self, name, label):
        """The values that a label has in any series of this name."""
        return {sample.labels[label] for sample in self.samples[name] if label in sample.labels}

    def labels(self, name):
        """The labels that the series of this name have."""
        return {label for sample in self.samples[name] for label in sample.labels}


def request(kind, options=()):
    """A request for a job of a kind that nobody here runs."""
    body = {"kind": kind, "input": {}, "options": dict(options)}
    return json_format.ParseDict(body, job_service_pb2.StartJobRequest())


@pytest.fixture(scope="module")
def figures(server):
    """A scrape after three jobs that succeeded, one that failed twice, one cancelled, one expired, and many that wait."""
    for _ in range(3):
        watch(server, start(server, {"seconds": 0.05}))
    retry = {"maximumAttempts": 2, "initialInterval": "0.1s"}
    broken = watch(server, start(server, {"seconds": 0.05, "chaos": {"error": 1}}, {"retryPolicy": retry}))
    assert broken[-1].state_change.state == Job.FAILED
    cancelled = server.jobs.StartJob(request("nobody"), timeout=TIMEOUT)
    server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=cancelled.id), timeout=TIMEOUT)
    late = server.jobs.StartJob(request("nobody", {"scheduleToStartTimeout": "0.1s"}), timeout=TIMEOUT)
    until(lambda: status(server, late).state == Job.EXPIRED, "EXPIRED")
    requests = [request(f"kind-{number:03}") for number in range(KINDS)]
    waiting = server.jobs.BatchStartJobs(job_service_pb2.BatchStartJobsRequest(requests=requests), timeout=TIMEOUT)
    refused(server.jobs.StartJob, request("No Such Kind"))
    refused(server.jobs.GetStatus, job_service_pb2.GetStatusRequest(job_id="x"))
    watched = server.jobs.WatchJob(job_service_pb2.WatchJobRequest(job_id=waiting.jobs[0].id), timeout=TIMEOUT)
    next(watched)
    yield Figures(server)
    watched.cancel()


def test_the_answer_is_openmetrics(figures):
    assert figures.content_type == OPENMETRICS
    assert figures.text.endswith("# EOF\n")
    for family in figures.families.values():
        assert family.name.startswith("longhaul_") and family.documentation, family
        assert not family.unit or family.name.endswith(f"_{family.unit}"), family


def test_every_outcome_is_counted(figures):
    assert figures.value("longhaul_jobs_started_total", kind="simulate") == 4
    assert figures.value("longhaul_attempts_started_total", kind="simulate") == 5
    assert figures.value("longhaul_jobs_ended_total", kind="simulate", state="SUCCEEDED") == 3
    assert figures.value("longhaul_jobs_ended_total", kind="simulate", state="FAILED") == 1
    assert figures.value("longhaul_jobs_ended_total", kind="nobody", state="CANCELLED") == 1
    assert figures.value("longhaul_jobs_ended_total", kind="nobody", state="EXPIRED") == 1
    assert figures.value("longhaul_attempts_ended_total", reason="COMPLETED") == 3


def test_jobs_are_counted_by_their_state_now(figures):
    states = {state: figures.value("longhaul_jobs", kind="simulate", state=state) for state in Job.State.keys()[1:]}
    assert {state: jobs for state, jobs in states.items() if jobs} == {"SUCCEEDED": 3, "FAILED": 1}
    assert figures.value("longhaul_jobs", kind="kind-000", state="PENDING") == 1
    assert sum(sample.value for sample in figures.samples["longhaul_jobs"]) == 6 + KINDS


def test_only_so_many_kinds_have_a_label(figures):
    # The server's own slots are for its own kinds only.
    by_kind = [name for name in figures.samples if "kind" in figures.labels(name) and name != "longhaul_slots"]
    assert len(by_kind) > 5
    for name in by_kind:
        assert len(figures.values(name, "kind")) == LABELLED + 1, name
    others = KINDS + len({"simulate", "summarize", "nobody"}) - LABELLED
    assert figures.value("longhaul_jobs_started_total", kind="other") == others
    assert figures.value("longhaul_jobs", kind="other", state="PENDING") == others


def test_times_are_measured(figures):
    assert figures.value("longhaul_queue_time_seconds_count", kind="simulate") == 4
    assert figures.value("longhaul_run_time_seconds_count", kind="simulate") == 5
    assert 3 * 0.05 <= figures.value("longhaul_run_time_seconds_sum", kind="simulate") < 60
    assert figures.value("longhaul_start_job_seconds_count", outcome="started") == 6
    assert figures.value("longhaul_start_job_seconds_count", outcome="failed") == 1


def test_commits_and_flushes_are_measured(figures):
    commits = figures.value("longhaul_commit_operations_count")
    assert 0 < commits <= figures.value("longhaul_commit_operations_sum")
    assert figures.value("longhaul_commit_seconds_count", outcome="committed") == commits
    assert figures.value("longhaul_flush_seconds_count") >= commits
    flushed = figures.value("longhaul_flush_seconds_sum")
    assert 0 < flushed < figures.value("longhaul_commit_seconds_sum", outcome="committed")
    assert figures.value("longhaul_commits_failed_total") == 0


def test_refusals_are_counted_by_their_reason(figures):
    counted = {sample.labels["reason"]: sample.value for sample in figures.samples["longhaul_refusals_total"]}
    assert {reason: count for reason, count in counted.items() if count} == {"INVALID_REQUEST": 2}


def test_what_is_open_now_is_told(figures):
    assert figures.value("longhaul_watchers", watching="job") == 1
    assert figures.value("longhaul_watchers", watching="jobs") == 0
    assert figures.value("longhaul_leases") == 0
    assert figures.value("longhaul_connections") >= 1
    assert figures.value("longhaul_slots", kind="simulate") == 4
    assert figures.value("longhaul_workers", kind="simulate") == 0
    assert figures.value("longhaul_workers", kind="nobody") == 0
    assert len(figures.samples["longhaul_build_info"]) == 1
    assert figures.value("longhaul_start_time_seconds") > 1.7e9


def parsed(query):
    """The query as Prometheus would parse it, once Grafana has put in what it puts in."""
    return promql_parser.parse(query.replace("$__rate_interval", "1m"))


COUNTED = ("_total", "_bucket", "_count", "_sum")
"""How the names of series end that only grow."""


def check_functions(query):
    """Fails where a function is used on a metric of another type: a rate of what falls as well, or a quantile of no buckets."""
    rates, quantiles, selectors = [], [], []

    def visit(part):
        match part:
            case promql_parser.Call() if part.func.name in ("rate", "increase"):
                rates.append(str(part))
            case promql_parser.Call() if part.func.name == "histogram_quantile":
                quantiles.append(str(part))
            case promql_parser.MatrixSelector():
                selectors.append(part.vector_selector.name)
            case promql_parser.VectorSelector():
                selectors.append(part.name)

    promql_parser.walk(parsed(query), visit)
    for name in set(selectors):
        counted = name.endswith(COUNTED)
        rated = any(name in rate for rate in rates)
        assert counted == rated, f"{name} {'is' if rated else 'is not'} under a rate"
        if any(name in quantile for quantile in quantiles):
            assert name.endswith("_bucket"), f"there is no quantile of {name}"


def parts(query):
    """The selectors of a query, and the labels that its aggregations and matchings name."""
    selectors, labels = [], set()

    def visit(part):
        match part:
            case promql_parser.MatrixSelector():
                selectors.append(part.vector_selector)
            case promql_parser.VectorSelector():
                selectors.append(part)
            case promql_parser.AggregateExpr() if part.modifier:
                labels.update(part.modifier.labels)
            case promql_parser.BinaryExpr() if part.modifier and part.modifier.matching:
                labels.update(part.modifier.matching.labels)

    promql_parser.walk(parsed(query), visit)
    # Whether a selector of a range shows itself once more is the walk's own affair.
    assert selectors, query
    return selectors, labels


def check(figures, query, legend=""):
    """Fails where a query, or the legend beside it, names what no server has."""
    selectors, named = parts(query)
    known = set(SCRAPED)
    for selector in selectors:
        assert selector.name in figures.samples, f"there is no metric {selector.name}"
        labels = figures.labels(selector.name)
        known |= labels
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels | SCRAPED, f"{selector.name} has no label {matcher.name}"
            if "$" not in matcher.value:
                values = figures.values(selector.name, matcher.name)
                for value in matcher.value.split("|"):
                    assert value in values, f"{matcher.name} of {selector.name} is never {value}"
    named |= set(re.findall(r"{{(\w+)}}", legend))
    assert named <= known, f"no metric of the query has a label {named - known}"


@pytest.mark.parametrize(("title", "target"), QUERIES, ids=[f"{title}-{target['refId']}" for title, target in QUERIES])
def test_a_query_of_the_dashboard_finds_what_it_asks_for(figures, title, target):
    check(figures, target["expr"], target["legendFormat"])
    check_functions(target["expr"])


def test_a_variable_of_the_dashboard_finds_its_values(figures):
    variables = [variable for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    assert {variable["name"] for variable in variables} == {"instance", "kind"}
    for variable in variables:
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
        check(figures, selector, "{{%s}}" % label)


def test_the_dashboard_shows_every_metric(figures):
    shown = {selector.name for _, target in QUERIES for selector in parts(target["expr"])[0]}
    for family in figures.families.values():
        assert any(sample.name in shown for sample in family.samples), f"no panel shows {family.name}"


@pytest.mark.parametrize(
    ("query", "legend"),
    [
        ("longhaul_job", ""),
        ('longhaul_jobs{state="PENDNG"}', ""),
        ('longhaul_jobs{tenant="a"}', ""),
        ("sum by (worker) (rate(longhaul_jobs_started_total[$__rate_interval]))", ""),
        ("longhaul_jobs and on (reason) longhaul_workers", ""),
        ("longhaul_leases", "{{kind}}"),
    ],
)
def test_the_check_finds_what_it_looks_for(figures, query, legend):
    with pytest.raises(AssertionError):
        check(figures, query, legend)


@pytest.mark.parametrize(
    "query",
    [
        "rate(longhaul_jobs[1m])",
        "longhaul_jobs_started_total",
        "histogram_quantile(0.5, sum by (le) (rate(longhaul_flush_seconds_sum[1m])))",
    ],
)
def test_the_check_of_functions_finds_what_it_looks_for(query):
    with pytest.raises(AssertionError):
        check_functions(query)
