"""Studies on a real Slurm of two nodes: kills, a requeue, a drained node, a cancelled job, jobs of two nodes, GPUs.

All are in one file, since test processes side by side share out files, and the machine holds one Slurm.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rlassay import ranks
from rlassay.files import read_json
from rlassay.layout import Layout
from tests.cluster.pair import RUN, new_pair, run_here
from tests.cluster.slurm import ask, cluster, end_jobs, jobs, missing
from tests.launcher import Launcher
from tests.schemas import differences
from tests.training.short_run import rollouts, timeless_metrics
from tests.workflow.project import Project, Started
from tests.workflow.test_crashes import comparable, job_at, manifest, wait_for

SEED = "runs/sharp/seed1"
NODES = ("n1", "n2")


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with cluster() as folder:
        yield folder


@pytest.fixture
def project(slurm: Path, finished: Project, tmp_path: Path) -> Iterator[Project]:
    """The finished project with one run and the report unmade; nothing that it starts outlives the test."""
    project = finished.copy(tmp_path / "project")
    for unmade in (SEED, "report"):
        shutil.rmtree(project.results / unmade)
    yield project
    end(project, slurm)


@pytest.fixture(scope="module")
def pair(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished run by two processes of this machine."""
    project = new_pair(tmp_path_factory.mktemp("pair"), processes=2)
    run_here(project, launcher)
    return project


def end(project: Project, slurm: Path) -> None:
    """End every process that works in the project's folder, and all jobs."""
    for process in processes_of(project):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    end_jobs(slurm)


def processes_of(project: Project) -> list[psutil.Process]:
    """The processes that work in the project's folder."""
    return [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == str(project.folder)]


def start(project: Project, target: str = "ablation_report") -> Started:
    """Start a Snakemake that sends the study's jobs to Slurm; only the jobs themselves limit their threads."""
    project.environment.pop("OMP_NUM_THREADS", None)
    command = ["snakemake", "--profile", "profiles/slurm", target, "--config", "study=smallest"]
    return project.start(*command)


def test_a_study_on_slurm_ends_with_the_numbers_of_a_local_run(project: Project, finished: Project):
    # 1. Snakemake is killed; its job lives on.
    first = start(project)
    training = wait_for(job_at(project, SEED, attempt=1, step=2))
    training.suspend()  # so that it cannot finish before it is requeued
    first.process.kill()
    first.process.wait()
    (job,) = jobs(project.folder, "rl_train", "RUNNING")
    asked = ask("scontrol", "show", "job", job)
    assert all(part in asked for part in ("TimeLimit=1-00:00:00", "mem=2500M", "NumCPUs=1 ")), asked
    assert training.environ()["OMP_NUM_THREADS"] == "1"

    # 2. Its node is drained, and it is requeued, as preemption does: it has to resume on the other node.
    (node,) = {name for name in NODES if f" NodeList={name}" in asked}
    ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    ask("scontrol", "requeue", job)

    # 3. The next Snakemake finds it, waits, and does not send it again. A job is cancelled, and sent again.
    second = start(project)
    cancelled = wait_for(lambda: jobs(project.folder, "generate", "RUNNING"))[0]
    ask("scancel", cancelled)
    ask("scontrol", "update", f"nodename={node}", "state=resume")
    printed = second.end()

    assert "jobs that an earlier Snakemake has sent to Slurm" in printed
    assert f"{job} (" in printed
    assert jobs(project.folder, "rl_train") == [job]
    assert len(jobs(project.folder, "generate")) == 2  # one, and the cancelled one
    assert manifest(project, SEED)["resumes"][0]["step"] >= 1
    assert manifest(project, SEED)["sha256"] == manifest(finished, SEED)["sha256"]
    check_results(project, finished)
    assert "Page: results/smallest/report/index.html" in printed  # the verdicts, which a job printed on its node

    # 4. The log ends with both attempts, after that of the copied project.
    log = (project.results / "logs" / SEED / "train.log").read_text()
    assert re.findall(r"^== .* on (\w+)$", log, flags=re.MULTILINE)[-2:] == [node, *({*NODES} - {node})]

    # 5. What ended while no Snakemake ran is known like the rest: a change of the study makes it again.
    project.edit("config/studies/smallest.yaml", "temperature: 0.7", "temperature: 0.8")
    assert f"Train {SEED}" in project.planned()


def check_results(project: Project, local: Project) -> None:
    """Check that Slurm left the numbers and the files of a local run, and besides them its own numbers of jobs."""
    assert comparable(project) == comparable(local)
    # How many runs are in MLflow when the report is written depends on time.
    found = differences(project.results, local.results)
    own = [line for line in found if not line.startswith("report/report.json: .mlflow.")]
    assert own == [".slurm.json: in one only", f"{SEED}/state/run.json: .slurm_job in one only"]


@pytest.fixture
def on_nodes(slurm: Path, pair: Project, tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Makes the project with its data and without its run, for nodes of Slurm; nothing outlives the test."""
    made: list[Project] = []

    def make(**where: int) -> Project:
        made.append(new_pair(tmp_path / "project", **where))
        shutil.copytree(pair.results / "data", made[-1].results / "data")
        return made[-1]

    yield make
    for project in made:
        end(project, slurm)


def test_a_run_of_two_nodes_that_loses_a_rank_resumes_with_the_results_of_one_machine(
    pair: Project, on_nodes: Callable[..., Project]
):
    project = on_nodes(nodes=2)
    snakemake = start(project, f"results/smallest/{RUN}/train.json")

    # 1. Two nodes with a rank each, whose signs of life are in one folder.
    first = wait_for(job_at(project, RUN, attempt=1, step=2))
    first.suspend()  # so that the run cannot finish meanwhile
    (folder,) = project.results.glob(".rlassay-ranks-*")
    signs = [read_json(ranks.alive(folder, number)) or {} for number in (0, 1)]
    found = [psutil.Process(sign["pid"]).environ() for sign in signs]

    # 2. A rank is killed: the job ends on both nodes, is sent again, and resumes.
    psutil.Process(signs[1]["pid"]).kill()
    first.resume()
    killed = time.monotonic()
    (failed,) = wait_for(lambda: jobs(project.folder, "rl_train", "FAILED"))
    seconds = time.monotonic() - killed
    left = [each for each in processes_of(project) if each.pid in {sign["pid"] for sign in signs}]
    snakemake.end()

    assert [sign["host"] for sign in signs] == list(NODES)
    for number, environment in enumerate(found):
        shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
        own = {"SLURMD_NODENAME": NODES[number], "RANK": f"{number}", "GROUP_RANK": f"{number}"}
        assert (shared | own).items() <= environment.items()
    asked = ask("scontrol", "show", "job", failed)
    assert "NodeList=n[1-2]" in asked
    assert "NumNodes=2 NumCPUs=2 NumTasks=2" in asked
    assert seconds < 60
    assert left == []
    log = (project.results / "logs" / RUN / "train.log").read_text()
    assert log.count("== ") == 2, log
    assert re.search(r"rank +: 1 \(local_rank: 0\)\n +exitcode +: -9 .*\(SIGKILL\)", log), log
    assert len(jobs(project.folder, "rl_train")) == 2
    assert manifest(project, RUN)["resumes"][0]["step"] >= 1
    check_equal(project, pair)


def check_equal(project: Project, other: Project) -> None:
    """Check that two projects have the same run: weights, metrics, rollouts and names of files."""
    assert manifest(project, RUN)["sha256"] == manifest(other, RUN)["sha256"]
    one, two = Layout(root=project.results), Layout(root=other.results)
    assert timeless_metrics(one, RUN) == timeless_metrics(two, RUN)
    assert rollouts(one, RUN) == rollouts(two, RUN)
    assert files_below(one.state(RUN)) == files_below(two.state(RUN))


def files_below(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(("nodes", "asked"), [(1, "TresPerJob=gres:gpu:1"), (2, "TresPerNode=gres:gpu:1")])
def test_a_job_gets_a_gpu_on_each_node(on_nodes: Callable[..., Project], nodes: int, asked: str):
    project = on_nodes(nodes=nodes, gpus=1)
    snakemake = start(project, f"results/smallest/{RUN}/train.json")
    devices = wait_for(lambda: devices_of(project, nodes))
    snakemake.kill_all()
    assert set(devices.values()) == {"0"}
    (job,) = jobs(project.folder, "rl_train", "RUNNING")
    assert asked in ask("scontrol", "show", "job", job)


def devices_of(project: Project, nodes: int) -> dict[str, str | None] | None:
    """Node -> GPUs that its process of a stage sees; None before that runs on all nodes."""
    found: dict[str, str | None] = {}
    for process in processes_of(project):
        with suppress(psutil.NoSuchProcess):
            if "rlassay.cli.stages" in process.cmdline():
                environment = process.environ()
                found[environment["SLURMD_NODENAME"]] = environment.get("CUDA_VISIBLE_DEVICES")
    return found if len(found) == nodes else None
