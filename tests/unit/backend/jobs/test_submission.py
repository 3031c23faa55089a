"""What is checked before a job is signed, how jobs are listed, and what a clone changes."""

import base64
from typing import Any

import pytest
from sqlalchemy import select

from backend.background import _renew_keys
from backend.db.models import Model
from backend.federation.signer import SIGNER_NAME
from backend.jobs.submission import merge_patch
from splitlearn.identity import (
    Certificate,
    FederationRoot,
    SigningKey,
    SpecSignature,
    TrustStore,
    verify_spec,
)
from splitlearn.spec import JobSpec
from tests.unit.backend.conftest import ON_SQLITE_ALONE, World
from tests.unit.backend.jobs.conftest import Federation, build_federation, signed_by

NORTH = {"name": "north", "dataset": "notes"}


def refusal(federation: Federation, path: str = "/jobs", **changes: Any) -> tuple[int, str, str]:
    answer = federation.world.admin("POST", path, {"spec": federation.spec(**changes)})
    told = answer.json()
    assert told["remedy"]
    return answer.status_code, told["code"], told["message"]


class TestSubmit:
    def test_signs_what_silos_and_workers_verify(self, federation: Federation) -> None:
        job_id = federation.placed()
        root = federation.world.server.authority.public_key
        for told in (
            federation.lease(job_id),
            federation.parties["north"].ok("GET", "/silo/jobs")["jobs"][0],
        ):
            spec = base64.b64decode(told["spec"])
            signature = SpecSignature.from_bytes(base64.b64decode(told["signature"]))
            trust, now = TrustStore(root), federation.clock()
            assert verify_spec(spec, signature, trust=trust, now=now).name == SIGNER_NAME
            assert JobSpec.parse(spec).canonical_bytes() == spec

    @ON_SQLITE_ALONE
    def test_pins_the_models_digest(self, federation: Federation) -> None:
        job = federation.job(federation.submit())
        model = federation.world.admin.ok("GET", "/models/tiny")
        assert job["spec"]["model"] == f"tiny@sha256:{model['digest']}"

    @ON_SQLITE_ALONE
    def test_leaves_a_trace(self, federation: Federation) -> None:
        job_id = federation.submit()
        row = next(row for row in federation.world.audit() if row["action"] == "submit_job")
        assert row["subject_name"] == job_id


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"silos": [NORTH, {"name": "south", "dataset": "secrets"}]}, "spec_refused", "no data set 'secrets'"),
    ({"silos": [{"name": "west", "dataset": "notes"}]}, "spec_refused", "no enrolled silo 'west'"),
    ({"model": "large"}, "spec_refused", "no model 'large'"),
    ({"model": "tiny@sha256:" + "0" * 64}, "spec_refused", "has digest"),
    ({"task": {"kind": "sft"}}, "spec_refused", "is for task 'causal-lm', the job's is 'sft'"),
    ({"rounds": 0}, "spec", "rounds"),
    ({"ronuds": 3}, "spec", "ronuds"),
    ({"silos": []}, "spec", "silos"),
    ({"silos": [NORTH, NORTH]}, "spec", "listed twice"),
    ({"privacy": {"noise": 0.5}}, "unserved", "noise"),
    ({"schedule": "hierarchical"}, "spec", "replicas"),
    ({"silos": [{**NORTH, "cut": {"bottom_layers": 3, "top_layers": 2}}]}, "model", "4"),
]


@ON_SQLITE_ALONE
class TestRefused:
    def test_is_every_wrong_specification_by_name(self, federation: Federation) -> None:
        for changes, code, part in REFUSED:
            for path in ("/jobs", "/jobs/plan"):
                status, found, message = refusal(federation, path, **changes)
                assert (status, found, part in message) == (422, code, True), (changes, message)
        assert federation.world.admin.ok("GET", "/jobs")["items"] == []

    def test_a_data_set_that_was_withdrawn(self, federation: Federation) -> None:
        federation.parties["south"].ok("PUT", "/silo/datasets", {"datasets": []})
        assert refusal(federation)[1] == "spec_refused"

    def test_a_silo_that_was_revoked(self, federation: Federation) -> None:
        federation.world.admin.ok("POST", "/silos/south/revoke")
        assert refusal(federation)[1:] == (
            "spec_refused",
            "silos: your organisation has no enrolled silo 'south'",
        )

    def test_another_organisations_silos(self, federation: Federation) -> None:
        foreign = federation.foreign_admin()
        answer = foreign.refused("POST", "/jobs", {"spec": federation.spec()})
        assert answer == (422, "spec_refused")

    def test_an_unknown_project(self, federation: Federation) -> None:
        body = {"spec": federation.spec(), "project": "none"}
        assert federation.world.admin.refused("POST", "/jobs", body) == (404, "not_found")

    def test_a_specification_of_very_many_levels(self, federation: Federation) -> None:
        deep: dict[str, Any] = {}
        for _ in range(500):
            deep = {"a": deep}
        assert refusal(federation, task=deep)[:2] == (422, "spec")
        job_id = federation.submit()
        body = {"changes": {"task": deep}}
        assert federation.world.admin.refused("POST", f"/jobs/{job_id}/clone", body) == (422, "spec")


class TestSiloBlocks:
    """Three silos and more average their blocks, unless the specification says otherwise."""

    @pytest.fixture
    def three(self, federation: Federation) -> list[dict[str, str]]:
        west = federation.world.anybody.as_(federation.world.enrolled("west", "silo").log_in()["token"])
        announced = {"name": "notes", "task": "causal-lm", "num_rows": 7, "schema_digest": "00" * 32}
        west.ok("PUT", "/silo/datasets", {"datasets": [announced]})
        return [NORTH, {"name": "south", "dataset": "notes"}, {"name": "west", "dataset": "notes"}]

    @ON_SQLITE_ALONE
    def test_of_three_silos_are_averaged_and_signed_as_such(
        self, federation: Federation, three: list[dict[str, str]]
    ) -> None:
        job = federation.job(federation.submit(silos=three))
        assert job["spec"]["silo_blocks"] == "averaged"
        told = federation.parties["north"].ok("GET", "/silo/jobs")["jobs"][0]
        assert b'"silo_blocks":"averaged"' in base64.b64decode(told["spec"])

    @ON_SQLITE_ALONE
    def test_of_two_stay_frozen(self, federation: Federation) -> None:
        assert federation.job(federation.submit())["spec"]["silo_blocks"] == "frozen"

    @ON_SQLITE_ALONE
    def test_stay_frozen_where_averaging_is_not_served_and_the_answer_says_why(
        self, federation: Federation, three: list[dict[str, str]]
    ) -> None:
        asked = {"spec": federation.spec(silos=three, on_lost_silo="continue", adapter={"kind": "full"})}
        job = federation.world.admin.ok("POST", "/jobs", asked)
        assert job["spec"]["silo_blocks"] == "frozen"
        (note,) = job["notes"]
        assert note.startswith("silo_blocks: 'frozen', not 'averaged'")
        assert federation.world.admin.ok("POST", "/jobs/plan", asked)["notes"] == [note]
        events = federation.world.admin("GET", f"/jobs/{job['id']}/events?follow=false").text
        assert "not 'averaged'" in events

    @ON_SQLITE_ALONE
    def test_a_clone_has_those_of_its_job(self, federation: Federation, three: list[dict[str, str]]) -> None:
        job_id = federation.submit(silos=three, silo_blocks="frozen")
        clone = federation.world.admin.ok("POST", f"/jobs/{job_id}/clone", {"changes": {"rounds": 2}})
        assert (clone["spec"]["silo_blocks"], clone["notes"]) == ("frozen", [])

    @ON_SQLITE_ALONE
    def test_a_clone_without_a_silo_that_leaves_has_to_say_others_where_too_few_are_left(
        self, federation: Federation, three: list[dict[str, str]]
    ) -> None:
        job_id = federation.submit(silos=three, adapter={"kind": "full"})
        path, left = f"/jobs/{job_id}/clone", {"silos": three[:2]}
        refused = federation.world.admin("POST", path, {"changes": left}).json()
        assert (refused["code"], "add silos, or use 'local'" in refused["message"]) == ("spec", True)
        clone = federation.world.admin.ok("POST", path, {"changes": {**left, "silo_blocks": "local"}})
        assert [silo["name"] for silo in clone["spec"]["silos"]] == ["north", "south"]

    @ON_SQLITE_ALONE
    def test_averaged_lora_is_hinted_at_its_exact_form(
        self, federation: Federation, three: list[dict[str, str]]
    ) -> None:
        asked = {"spec": federation.spec(silos=three, adapter={"kind": "lora"})}
        (note,) = federation.world.admin.ok("POST", "/jobs/plan", asked)["notes"]
        assert "freeze_a" in note


class TestRows:
    @ON_SQLITE_ALONE
    def test_longer_than_the_model_has_positions_for_are_refused(self, federation: Federation) -> None:
        with federation.world.server.database.write() as session:
            model = session.scalars(select(Model)).one()
            config = {**model.manifest["config"], "max_position_embeddings": 512}
            model.manifest = {**model.manifest, "config": config}
        federation.world.admin.ok("POST", "/jobs/plan", {"spec": federation.spec(max_tokens=512)})
        refused = federation.world.admin("POST", "/jobs", {"spec": federation.spec(max_tokens=513)}).json()
        said = "max_tokens: 513 is more than the 512 positions of the model; give 512 or less"
        assert (refused["code"], refused["message"]) == ("spec", said)


class TestTargets:
    @ON_SQLITE_ALONE
    def test_that_no_layer_has_are_refused_by_name(self, federation: Federation) -> None:
        for target in ("zzz", "lm_head", "roj"):
            adapter = {"kind": "lora", "targets": ["q_proj", target]}
            refused = federation.world.admin(
                "POST", "/jobs/plan", {"spec": federation.spec(adapter=adapter)}
            ).json()
            assert refused["code"] == "spec"
            said = (
                f"adapter.targets: {target!r} is no linear module of the model's layers; choose among q_proj"
            )
            assert said in refused["message"]

    @ON_SQLITE_ALONE
    def test_may_be_named_in_full(self, federation: Federation) -> None:
        for target in ("q_proj", "self_attn.q_proj", "model.layers.1.self_attn.q_proj"):
            adapter = {"kind": "lora", "targets": [target]}
            federation.world.admin.ok("POST", "/jobs/plan", {"spec": federation.spec(adapter=adapter)})


class TestClone:
    @ON_SQLITE_ALONE
    def test_is_the_same_job_where_nothing_changes(self, federation: Federation) -> None:
        first = federation.job(federation.submit())
        clone = federation.world.admin.ok("POST", f"/jobs/{first['id']}/clone", {})
        assert (clone["spec"], clone["spec_digest"]) == (first["spec"], first["spec_digest"])
        assert (clone["parent_id"], clone["state"]) == (first["id"], "awaiting_approval")

    @ON_SQLITE_ALONE
    def test_of_a_job_whose_model_was_removed_is_refused_by_name(self, federation: Federation) -> None:
        job_id = federation.submit()
        federation.world.admin.ok("POST", f"/jobs/{job_id}/cancel")
        federation.look()
        federation.world.admin.ok("DELETE", "/models/tiny")
        answer = federation.world.admin.refused("POST", f"/jobs/{job_id}/clone", {})
        assert answer == (422, "spec_refused")

    @ON_SQLITE_ALONE
    def test_refuses_changes_that_fit_no_specification(self, federation: Federation) -> None:
        job_id = federation.submit()
        for changes in ({"rounds": None, "silos": None}, {"model": None}, {"silos": {"north": 1}}):
            answer = federation.world.admin.refused("POST", f"/jobs/{job_id}/clone", {"changes": changes})
            assert answer == (422, "spec"), changes

    @pytest.mark.parametrize(
        ("target", "patch", "merged"),
        [  # RFC 7396, appendix A
            ({"a": "b"}, {"a": "c"}, {"a": "c"}),
            ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
            ({"a": "b"}, {"a": None}, {}),
            ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
            ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
            ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
            ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
            ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
            (["a", "b"], ["c", "d"], ["c", "d"]),
            ({"a": "b"}, ["c"], ["c"]),
            ({"a": "foo"}, None, None),
            ({"a": "foo"}, "bar", "bar"),
            ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
            ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
            ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ],
    )
    def test_merges_as_the_standard_says(self, target: Any, patch: Any, merged: Any) -> None:
        assert merge_patch(target, patch) == merged


def _small_pages(federation: Federation) -> None:
    server = federation.world.server
    object.__setattr__(server, "settings", server.settings.model_copy(update={"max_page": 2}))


def _ids(page: dict[str, Any]) -> list[str]:
    return [item["id"] for item in page["items"]]


class TestList:
    def test_shows_each_once_while_others_come(self, federation: Federation) -> None:
        _small_pages(federation)
        submitted = []
        for _ in range(5):
            submitted.append(federation.submit())
            federation.clock.advance(seconds=1)
        page = federation.world.admin.ok("GET", "/jobs")
        seen = _ids(page)
        while page["next"]:
            federation.submit(name="newcomer")  # stands before the page that was read
            federation.clock.advance(seconds=1)
            page = federation.world.admin.ok("GET", f"/jobs?after={page['next']}")
            seen += _ids(page)
        assert seen == submitted[::-1]

    def test_pages_split_jobs_of_one_moment(self, federation: Federation) -> None:
        _small_pages(federation)
        submitted = {federation.submit() for _ in range(5)}
        page = federation.world.admin.ok("GET", "/jobs")
        seen = _ids(page)
        while page["next"]:
            page = federation.world.admin.ok("GET", f"/jobs?after={page['next']}")
            seen += _ids(page)
        assert (len(seen), set(seen)) == (5, submitted)

    @ON_SQLITE_ALONE
    def test_filters_by_state_name_and_silo(self, federation: Federation) -> None:
        both = federation.submit(name="both")
        alone = federation.submit(name="alone", silos=[NORTH])
        federation.world.admin.ok("POST", f"/jobs/{alone}/cancel")
        federation.look()
        for query, expected in (
            ("state=cancelled", [alone]),
            ("state=awaiting_approval", [both]),
            ("name=both", [both]),
            ("silo=south", [both]),
            ("silo=north", [alone, both]),
            ("silo=north&state=cancelled&name=alone", [alone]),
            ("name=none", []),
        ):
            found = _ids(federation.world.admin.ok("GET", f"/jobs?{query}"))
            assert sorted(found) == sorted(expected), query

    @ON_SQLITE_ALONE
    def test_refuses_what_is_no_filter_or_page(self, world: World) -> None:
        cursors = ["x", "_", "2026-03-01T12:00:00_" + "0" * 32, "2026-03-01T12:00:00Z_x", "9" * 101]
        for query in ("state=lost", "name=UPPER", "silo=a/b", *(f"after={cursor}" for cursor in cursors)):
            assert world.admin.refused("GET", f"/jobs?{query}") == (422, "invalid_request"), query

    @ON_SQLITE_ALONE
    def test_rounds_and_artifacts_come_in_pages(self, federation: Federation) -> None:
        _small_pages(federation)
        job_id = federation.running()
        for number in (1, 2, 3):
            federation.commit(job_id, number)
        for what, key in (("rounds", "number"), ("artifacts", "name")):
            first = federation.world.admin.ok("GET", f"/jobs/{job_id}/{what}")
            second = federation.world.admin.ok("GET", f"/jobs/{job_id}/{what}?after={first['next']}")
            assert (len(first["items"]), len(second["items"]), second["next"]) == (2, 1, None), what
            assert len({item[key] for page in (first, second) for item in page["items"]}) == 3, what


class TestSigner:
    def test_of_an_offline_root_waits_for_its_certificate(
        self, offline_world: tuple[World, FederationRoot]
    ) -> None:
        world, root = offline_world
        federation = build_federation(world, root=root)
        assert refusal(federation)[:2] == (409, "no_spec_signer")
        assert _install(world, root)["certificate"] is not None
        assert federation.job(federation.submit())["state"] == "awaiting_approval"

    @ON_SQLITE_ALONE
    def test_whose_certificate_has_expired_is_named(self, federation: Federation) -> None:
        world = federation.world
        federation.clock.advance(days=world.server.settings.certificate_days + 3)
        world.admin = world.sign_in("admin", world.first.password)
        status, code, message = refusal(federation)
        assert (status, code) == (409, "no_spec_signer")
        assert "may not sign specifications any more" in message

    @ON_SQLITE_ALONE
    def test_of_an_embedded_root_is_renewed_while_the_server_runs(self, federation: Federation) -> None:
        world = federation.world
        federation.clock.advance(days=world.server.settings.certificate_days + 3)
        world.admin = world.sign_in("admin", world.first.password)
        _renew_keys(world.server)
        assert federation.job(federation.submit())["state"] == "awaiting_approval"

    @ON_SQLITE_ALONE
    def test_whose_certificate_was_revoked_is_named(
        self, offline_world: tuple[World, FederationRoot]
    ) -> None:
        world, root = offline_world
        federation = build_federation(world, root=root)
        certificate = Certificate.from_bytes(base64.b64decode(_install(world, root)["certificate"]))
        revoked = root.revoke([certificate.serial], issued_at=world.clock(), previous=None)
        body = {"revocation_list": base64.b64encode(revoked.to_bytes()).decode()}
        world.admin.ok("PUT", "/federation/revocations", body)
        assert refusal(federation)[:2] == (409, "no_spec_signer")

    @ON_SQLITE_ALONE
    def test_takes_no_other_certificate(self, offline_world: tuple[World, FederationRoot]) -> None:
        world, root = offline_world
        request = world.admin.ok("GET", "/federation/spec-signer")
        other_key = base64.b64encode(SigningKey.generate().public_key.raw).decode()
        for signer, changes in (
            (FederationRoot.generate(), {}),
            (root, {"public_key": other_key}),
            (root, {"kind": "silo"}),
            (root, {"name": "another"}),
        ):
            body = {"certificate": signed_by(signer, world, request, **changes)}
            answer = world.admin.refused("PUT", "/federation/spec-signer", body)
            assert answer == (409, "certificate_refused"), changes


def _install(world: World, root: FederationRoot) -> dict[str, Any]:
    request = world.admin.ok("GET", "/federation/spec-signer")
    assert request["certificate"] is None
    body = {"certificate": signed_by(root, world, request)}
    installed: dict[str, Any] = world.admin.ok("PUT", "/federation/spec-signer", body)
    return installed
