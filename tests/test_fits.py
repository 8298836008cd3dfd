"""Fits of people: several in one batch are those of each alone, and one that fails costs no
other."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import full_but
from test_store import together

from fsrbench import registry
from fsrbench.core import Method, Person
from fsrbench.engine.fits import PEOPLE, fit_key, fit_people
from fsrbench.engine.keys import method_digest
from fsrbench.engine.run import Run
from fsrbench.engine.samples import load_samples
from fsrbench.engine.store import Store
from fsrbench.methods.idfsr import fitting
from fsrbench.methods.idfsr.configs import CONFIGS
from fsrbench.methods.idfsr.network import IdfsrNet
from fsrbench.methods.idfsr.objective import diffusion_loss
from fsrbench.profiles import PROFILES
from fsrbench.training.footprint import most_bytes


class Learns(Method):
    """Takes its level of grey from a fit to the name of the person; up to three at once."""

    name, title, needs = "learns.test", "Learns", frozenset({"fit"})
    width, asked, bad = 3, [], ()

    def together(self):
        return self.width

    def fit(self, person, seed):
        return self.fit_many([person], seed)[0]

    def fit_many(self, people, seed):
        self.asked.append([p.name for p in people])
        if any(p.name in self.bad for p in people):
            raise ValueError(f"cannot learn {len(people)}")
        return [{"z": torch.tensor([len(p.name) / 10])} for p in people]

    def restore(self, batch):
        levels = [float(batch.fits[name]["z"]) for name in batch.people]
        return np.ones_like(batch.upsampled) * np.array(levels, np.float32)[:, None, None, None]


@pytest.fixture
def learns(monkeypatch):
    monkeypatch.setitem(registry._methods, Learns.name, Learns)
    monkeypatch.setattr(Learns, "asked", [])
    return Learns


def run(quick_plan, root, people="4", **changes):
    plan = quick_plan(methods=(Learns.name,), metrics=("psnr",), people=people, batch="7")
    return Run(replace(plan, **changes), Store(root)).execute()


def status_of(outcome):
    rows = outcome.records[outcome.records["metric"] == "restored"]
    return {person: set(part["status"]) for person, part in rows.groupby("person", observed=True)}


def test_people_are_fitted_several_at_once_and_the_record_says_so(quick_plan, tmp_path, learns):
    outcome = run(quick_plan, tmp_path)
    assert sorted(map(len, learns.asked)) == [1, 3] and outcome.computed["fitted"] == 4
    assert set(outcome.records["status"]) == {"ok"}
    rows = outcome.records[outcome.records["metric"] == "restored"]
    notes = rows.groupby("person", observed=True)["note"].unique()
    assert sorted(note for (note,) in notes) == [""] + ["fitted in one batch with others "
                                                        "(3 people)"] * 3
    before = list(learns.asked)
    assert run(quick_plan, tmp_path).computed["fitted"] == 0 and learns.asked == before


def test_a_person_who_cannot_be_fitted_costs_no_other(quick_plan, tmp_path, learns, monkeypatch,
                                                      capsys):
    people = list(status_of(run(quick_plan, tmp_path / "names")))
    monkeypatch.setattr(learns, "bad", people[1:2])
    outcome = run(quick_plan, tmp_path / "store")
    found = status_of(outcome)
    said = f"failed: not fitted to {people[1]}: ValueError: cannot learn 1"
    assert found == {name: {said if name == people[1] else "ok"} for name in people}
    assert outcome.computed["fitted"] == 3 and "at once (ValueError: cannot learn 3); trying by " \
        "halves" in capsys.readouterr().err
    learns.asked.clear()
    again = run(quick_plan, tmp_path / "store")
    assert learns.asked == [] and status_of(again) == found, "a failure is a result"
    monkeypatch.setattr(learns, "bad", ())
    mended = run(quick_plan, tmp_path / "store", retry=True)
    assert learns.asked == [[people[1]]] and set(mended.records["status"]) == {"ok"}


@pytest.mark.parametrize("found, said", [
    (None, "fit returned no tensors by name"), ({"z": 3.0}, "fit returned no tensors by name"),
    ({"z": torch.tensor([float("nan")])}, "the fitted z is not finite")])
def test_a_fit_that_is_none_is_a_failure_with_its_cause(quick_plan, tmp_path, learns, monkeypatch,
                                                       found, said):
    monkeypatch.setattr(learns, "fit_many", lambda self, people, seed: [found for _ in people])
    outcome = run(quick_plan, tmp_path, people="2")
    assert {status.partition(": ")[2].partition(": ")[2]
            for (status,) in status_of(outcome).values()} == {said}
    assert not list((tmp_path / "fits").glob("*.safetensors"))


def test_a_method_that_knows_one_person_only_is_asked_for_one_after_the_other(quick_plan, tmp_path,
                                                                             monkeypatch):
    asked = []

    class Plain(Method):
        name, title, needs = "learns.test", "Plain", frozenset({"fit"})

        def fit(self, person, seed):
            asked.append(person.name)
            return {"z": torch.zeros(1)}

        def restore(self, batch):
            return batch.upsampled
    monkeypatch.setitem(registry._methods, Plain.name, Plain)
    outcome = run(quick_plan, tmp_path)
    assert len(asked) == len(set(asked)) == 4 and set(outcome.records["note"]) == {""}
    method, people = Plain(PROFILES["mini"]), [Person(name, ()) for name in "ab"]
    assert method.together() == 1 and len(method.fit_many(people, 0)) == 2


def test_processes_that_fit_the_same_people_at_once_share_the_work(tmp_path, learns):
    """In whatever order each is asked for them, none waits for ever and nobody is fitted twice."""
    method, people = learns(PROFILES["mini"]), [Person(name, ()) for name in "abc"]
    learn = learns.fit_many
    method.fit_many = lambda some, seed: time.sleep(0.05) or learn(method, some, seed)
    made, orders = [], (people, people[::-1], people[1:], people[:2])
    together(*[lambda some=some: made.append(fit_people(Store(tmp_path), method, some, 0,
                                                        method_digest(method)))
               for some in orders])
    fitted = [name for names in learns.asked for name in names]
    assert sorted(fitted) == ["a", "b", "c"] and sum(count for count, _ in made) == 3


def test_shards_begin_with_other_people(quick_plan, tmp_path, learns, monkeypatch):
    """Each of two shards is asked for all people, as their images are in its chunks."""
    monkeypatch.setattr(learns, "width", 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    order = {}
    for rank in "01":
        learns.asked.clear()
        monkeypatch.setenv("RANK", rank)
        run(quick_plan, tmp_path / rank, batch=1)
        order[rank] = [name for names in learns.asked for name in names]
    assert sorted(order["0"]) == sorted(order["1"]) and len(order["0"]) == 4
    assert order["1"] == [*order["0"][2:], *order["0"][:2]]


# --- of IDFSR ----------------------------------------------------------------------------------


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setitem(fitting.FITS, "mini", replace(fitting.FITS["mini"], steps=4, batch=3))


def test_z_ids_fitted_in_one_batch_are_those_of_each_alone(session_store, few_steps):
    """Whoever is beside them, in whatever order, within the rounding of float32."""
    samples = load_samples("orl", PROFILES["mini"], session_store, 3, 0).samples
    people = list({s.person: Person(s.person, s.album) for s in samples}.values())
    # Halves differ in length.
    people[0] = replace(people[0], album=people[0].album[:2])
    method = registry.get("idfsr.ft")(PROFILES["mini"])
    alone = [method.fit(p, 0)["z_id"] for p in people]
    starts = [method._start(p, 0) for p in people]
    assert all(float((a - s).abs().max()) > 0.02 for a, s in zip(alone, starts)), "nothing moved"
    for order in ((0, 1, 2), (2, 0)):
        both = method.fit_many([people[i] for i in order], 0)
        for i, found in zip(order, both):
            assert float((found["z_id"] - alone[i]).abs().max()) < 2e-6
    assert method.together() == 1, "on a processor a person is fitted alone, to the same bits"


@pytest.mark.parametrize("profile", full_but(["mini", "paper"], "mini"))
def test_an_image_of_a_fit_takes_the_memory_that_is_reckoned_with(profile):
    config, fit = CONFIGS[profile], fitting.FITS[profile]
    unet, side = config.unet, config.unet.image_size

    def step(count):
        def work(_):
            network = IdfsrNet(config).eval().requires_grad_(False)
            z_id = torch.zeros(1, unet.id_channels, requires_grad=True)
            images = torch.zeros(3, count, 3, side, side)
            diffusion_loss(network, config, fitting.linear_schedule(config.T), images[0],
                           torch.zeros(count, dtype=torch.long), images[1], images[2],
                           torch.zeros(count, unet.style_channels),
                           z_id.expand(count, -1)).backward()
        return most_bytes(work)
    assert (step(3) - step(2)) == pytest.approx(fit.image_bytes, rel=0.1)


def test_a_gpu_takes_as_many_people_as_its_memory(monkeypatch):
    of = {gigabytes: [fitting.people_at_once(PROFILES[name], int(gigabytes * 1e9))
                      for name in ("mini", "paper")] for gigabytes in (0.1, 1, 24, 80, 141)}
    assert of == {0.1: [1, 1], 1: [5, 1], 24: [16, 1], 80: [16, 1], 141: [16, 2]}
    monkeypatch.setattr("fsrbench.methods.idfsr.method.device", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (int(1e9), int(8e9)))
    assert registry.get("idfsr.ft")(PROFILES["mini"]).together() == 5


def test_the_file_of_a_fit_says_how_many_were_in_the_batch(tmp_path, learns):
    method, store = learns(PROFILES["mini"]), Store(tmp_path)
    people, digest = [Person(name, ()) for name in "abcd"], method_digest(method)
    fit_people(store, method, people[:3], 0, digest)
    fit_people(store, method, people[3:], 0, digest)
    assert [store.facts("fits", fit_key(method, p, 0, digest)).get(PEOPLE)
            for p in people] == ["3", "3", "3", None]
