"""The examples with real networks do what their READMEs say, through the real binary.

Without LONGHAUL_MODELS_PYTHON, which names a Python that has their models, they are skipped.
"""

import pathlib
import re
import shutil
import subprocess

import pytest
from examples import EXAMPLES, PYTHON, fractions, logs, persistent, processes, result, seconds_until, shell, stages, typed
from client import Job, rendered, states
from conftest import start_server, until  # noqa: F401  (a fixture)

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="LONGHAUL_MODELS_PYTHON names no Python")

TEXT = (
    "A job server keeps the promises of a program. It writes down every job before it answers, "
    "it watches the workers, and it starts again what has failed."
)
PAGE = """Minutes of the village council
The bridge over the mill stream is closed until spring.
Anna Berg was elected treasurer for two years.
A new roof for the school will cost 48,000 euros.
Dogs must be kept on a lead near the playground.
The choir sings in the church on the third Sunday.
The bus to the station now runs every 30 minutes.
Next meeting: 14 January, 7 pm, in the old town hall."""
ANSWERS = {
    "public transport": "The bus to the station",
    "How much money does the building cost?": "A new roof",
    "pets": "Dogs must be kept",
    "When do we come together again?": "Next meeting",
}
PROGRAMS = {"voice": "voice.py", "scan-search": "scan_search.py"}
STAGES = {
    "voice": ["Speaking", "Listening", "Summarizing"],
    "scan-search": ["Finding the lines", "Reading", "Searching"],
}
INPUTS = {"voice": {"text": TEXT}, "scan-search": {"image": "page.png", "query": "public transport"}}
LONG_INPUTS = {
    # So long that a test has all the time to stop it before its last stage.
    "voice": {"text": " ".join([TEXT] * 12)},
    "scan-search": {"image": "long.png", "query": "public transport"},
}


@pytest.fixture
def worker(start_server, tmp_path):  # noqa: F811
    """Starts the worker of an example: `worker("voice")`."""
    workers = []

    def start(kind):
        folder = tmp_path / f"folder-of-{kind}"
        folder.mkdir()
        if kind == "scan-search":
            draw(PAGE, folder / "page.png")
            draw("\n".join([PAGE] * 5), folder / "long.png")
            draw(PAGE, tmp_path / "outside.png")
            (folder / "no-image.png").write_text(PAGE)
        workers.append(persistent(start_server(), kind, PROGRAMS[kind], folder))
        return workers[-1]

    yield start
    for each in workers:
        if each.process.poll() is None:
            each.kill()
        # Shown by pytest where the test has failed.
        print(each.log.read_text())


def draw(text, path):
    page = EXAMPLES / "scan-search" / "page.py"
    subprocess.run([PYTHON, page, path], input=text, text=True, check=True, timeout=60)


def words(text):
    return set(re.findall(r"[a-z']+", text.lower()))


def test_a_text_is_spoken_heard_and_summed_up(worker):
    voice = worker("voice")

    messages, job = voice.do(INPUTS["voice"])

    heard = result(job)
    assert len(words(TEXT) & words(heard["transcript"])) >= 0.8 * len(words(TEXT)), heard
    assert heard["words_wrong"] <= 0.2
    assert words("job server program workers") & words(heard["summary"]), "the summary is about something else"
    assert rendered(messages) == heard["transcript"] and rendered(messages, "summary") == heard["summary"]
    sound = pathlib.Path(heard["wav"])
    assert sound == voice.folder / f"{job.id}.wav"
    assert sound.read_bytes()[:4] == b"RIFF" and sound.stat().st_size > 5 * 2 * 22_050, "5 s of speech at least"
    voice.stop()


def test_the_line_that_answers_a_query_comes_first(worker):
    scan_search = worker("scan-search")

    for query, answer in ANSWERS.items():
        messages, job = scan_search.do({"image": "page.png", "query": query})

        lines = result(job)["lines"]
        scores = [line["score"] for line in lines]
        assert lines[0]["text"].startswith(answer) and scores == sorted(scores, reverse=True), f"{query}: {lines}"
        in_order = sorted(lines, key=lambda line: line["line"])
        assert rendered(messages) == "".join(f"{line['text']}\n" for line in in_order)
        # A letter read wrong, or a space not seen, is what such readers do.
        assert len(lines) == len(PAGE.splitlines())
        assert len(words(PAGE) & words(rendered(messages))) >= 0.8 * len(words(PAGE)), rendered(messages)
    scan_search.stop()


@pytest.mark.parametrize("kind", PROGRAMS)
def test_the_models_are_loaded_once_and_serve_the_next_job(worker, kind):
    program = worker(kind)
    first, one = program.do(INPUTS[kind])
    children = program.children()

    second, two = program.do(INPUTS[kind])

    [child], [loaded] = children, [line for line in logs(first) if "loaded its models" in line]
    assert loaded.startswith(f"process {child} ") and program.children() == children
    assert not [line for line in logs(second) if "loaded its models" in line]
    assert seconds_until(STAGES[kind][0], second) < seconds_until(STAGES[kind][0], first) / 3
    # The same input comes to the same, in a file of its own.
    one, two = result(one), result(two)
    assert one.pop("wav", 1) != two.pop("wav", 2) and one == two
    program.stop()


@pytest.mark.parametrize("kind", PROGRAMS)
def test_progress_goes_forward_through_the_stages(worker, kind):
    program = worker(kind)

    for expected in (["Loading the models", *STAGES[kind]], STAGES[kind]):
        messages, job = program.do(INPUTS[kind])

        shown = fractions(messages)
        assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"] and stages(messages) == expected
        assert shown == sorted(shown) and len(set(shown)) >= 5, shown
        assert job.progress.fraction == 1


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_cancelled_job_stops_and_the_models_stay_loaded(worker, kind):
    program, messages = worker(kind), []
    job = program.start(LONG_INPUTS[kind])
    for message in program.watch(job):
        messages.append(message)
        if message.progress.completed >= 2 and "CANCELLING" not in states(messages):
            program.cancel(job)

    assert states(messages) == ["PENDING", "RUNNING", "CANCELLING", "CANCELLED"]
    assert STAGES[kind][-1] not in stages(messages), "it went on to the end"
    [child] = program.children()

    messages, after = program.do(INPUTS[kind])

    assert after.state == Job.SUCCEEDED and program.children() == {child}
    assert "Loading the models" not in stages(messages)
    program.stop()


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_worker_that_is_killed_takes_its_program_along(worker, kind):
    program = worker(kind)
    job = program.start(LONG_INPUTS[kind])
    next(message for message in program.watch(job) if message.progress.completed)
    assert program.children()

    program.kill()

    until(lambda: not processes(program.folder), "the end of the program")


@pytest.mark.parametrize(("kind", "input", "field"), [
    ("voice", {}, "text"),
    ("voice", {"text": 5}, "text"),
    ("voice", {"text": "..."}, "text"),
    ("voice", {"text": "word " * 500}, "text"),
    ("scan-search", {"query": "pets"}, "image"),
    ("scan-search", {"image": "missing.png", "query": "pets"}, "image"),
    ("scan-search", {"image": "no-image.png", "query": "pets"}, "image"),
    ("scan-search", {"image": "../outside.png", "query": "pets"}, "image"),
    ("scan-search", {"image": "page.png", "query": " "}, "query"),
])
def test_a_bad_input_fails_for_good_and_names_the_field(worker, kind, input, field):
    messages, job = worker(kind).do(input)

    assert states(messages) == ["PENDING", "RUNNING", "FAILED"]
    assert (job.failure.reason, job.failure.permanent, job.attempt) == ("INVALID_INPUT", True, 1)
    assert job.failure.details["field"] == field and job.failure.message.startswith(f"{field} must be ")


@pytest.mark.parametrize(("example", "output"), [
    ("voice", "promises of a program"),
    ("scan-search", "The bus to the station"),
])
def test_what_its_readme_says_is_true(start_server, tmp_path, example, output):  # noqa: F811
    # What the commands write stays out of the repository.
    folder = shutil.copytree(EXAMPLES / example, tmp_path / example)

    printed = shell(typed(example), folder, start_server())

    assert "SUCCEEDED" in printed and output in printed, printed
