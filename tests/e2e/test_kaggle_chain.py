"""To Kaggle and back: search → notebook → run offline → the file of `submit` → sent → scored → report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kaggle_tree import find_something

from histofold.inference.ensemble import Ensemble
from histofold.kaggle import log

SLUG = "demo-competition"
KERNEL = ["kernel.owner=tester", "kernel.wheels=[]", "kernel.device=cpu"]


class Chain:
    """The verbs on the trained world as a competition that is on Kaggle, with an ensemble of its own."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.known = [f"competition.slug={SLUG}", f"competition.options.folder={world.competition}", "name=chain"]
        self.sent: Path = world.submission.parent
        self.folder = self.sent / "chain"

    def run(self, verb: str, *more: str) -> None:
        assert self.world.run(verb, *self.known, *KERNEL, *more) == 0, verb

    @property
    def ensemble(self) -> Path:
        return Ensemble.place(self.world.root / "oof", self.world.competition, "chain")


@pytest.fixture(params=["nuclei", pytest.param("kidney", marks=pytest.mark.slow)])
def chain(request: pytest.FixtureRequest) -> Iterator[Chain]:
    made = Chain(request.getfixturevalue(request.param))
    yield made
    # The world is shared: its own ensembles stay the only ones.
    made.ensemble.unlink()
    made.ensemble.with_suffix(".csv").unlink()


def test_to_kaggle_and_back(
    chain: Chain, machine: Any, kaggle_server: Any, said: Callable[[], str], secret: str
) -> None:
    nuclei = chain.world.competition == "demo_nuclei"
    # 480 settings of the watershed are tuned elsewhere; thresholds are a histogram each.
    tuned = f"evaluate.tune={'false' if nuclei else 'true'}"
    chain.run("evaluate", "runs=[first,second]", "folds=all", "evaluate.search=best", tuned)
    text = said()
    assert all(word in text for word in ("equal", "greedy", "optimise", "first adds", "second adds", "cross-fitted"))
    chain.run("predict")
    find_something(chain.world, "chain")
    chain.run("submit")
    chain.run("kernel")

    there = machine(chain.world, chain.folder / "kernel", SLUG)
    done = there.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "!!!" not in done.stderr
    csv = (chain.folder / "submission.csv").read_bytes()
    assert (there.working / "submission.csv").read_bytes() == csv
    assert len(csv) > 1000

    # A competition of slides takes a notebook, the other one the file.
    chain.run(*(["submit", "submit.send=true"] if nuclei else ["kernel", "kernel.push=true"]))
    (sent,) = kaggle_server.submitted
    if nuclei:
        assert kaggle_server.uploads == [csv]
    else:
        assert (sent["kernelVersion"], sent["fileName"], sent["competitionName"]) == (7, "submission.csv", SLUG)
    (entry,) = log.read(chain.sent / "log.csv")
    cv = Ensemble.read(chain.ensemble).score["cross_fitted"]
    assert (entry.name, entry.public, entry.private, entry.status) == ("chain", "0.91", "0.89", log.COMPLETE)
    assert float(entry.cv) == pytest.approx(cv, abs=1e-6)

    chain.run("report")
    page = (chain.folder / "report.html").read_text()
    # One submission: a dot each for the public and the private score, at this CV.
    for name, score in (("public", "0.9100"), ("private", "0.8900")):
        assert f"chain: CV {cv:.4f}, {name} {score}" in page
    assert secret not in said() + page + (chain.sent / "log.csv").read_text()
