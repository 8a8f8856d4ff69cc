import json

import numpy as np
import pytest

from jaxgkd import processes
from jaxgkd.errors import ConfigError
from jaxgkd.teachers.shared_store import SharedStoreWriter
from jaxgkd.teachers.store import Store
from tests.teachers.test_store import HIDDEN, ITEMS, LOG_PROBS, ROWS, array_bytes, manifest, write_missing


@pytest.fixture
def writer_of(monkeypatch, tmp_path):
    """The writer of one of two processes, which here come one after another and need not wait."""

    def writer_of(number):
        monkeypatch.setattr(processes, "_number", number)
        monkeypatch.setattr(processes, "wait_for_all", lambda what: None)
        return SharedStoreWriter(tmp_path / "shared", manifest(), ITEMS, ROWS)

    return writer_of


def write(writer, start, stop):
    writer.write(start, HIDDEN[start:stop], log_probs=LOG_PROBS[start:stop], seconds=0.5)


def test_the_leader_takes_over_what_the_others_have_written(writer_of, tmp_path, monkeypatch):
    leader = writer_of(0)
    other = writer_of(1)
    write(other, 4, 8)
    write(other, 8, 10)
    monkeypatch.setattr(processes, "_number", 0)
    write(leader, 0, 4)
    leader.collect()
    leader.finish({"n_tokens": 7})
    store = Store.open(tmp_path / "shared")
    np.testing.assert_array_equal(store.as_array(), HIDDEN[ROWS])
    np.testing.assert_array_equal(store.as_array("log_probs"), LOG_PROBS[ROWS])
    whole = array_bytes(write_missing(tmp_path / "alone").folder)
    assert sorted(whole.values()) == sorted(array_bytes(tmp_path / "shared").values())
    assert not list((tmp_path / "shared").glob("share*"))


def test_what_killed_processes_had_finished_is_kept(writer_of, tmp_path):
    killed = [writer_of(0), writer_of(1)]
    write(killed[1], 4, 8)
    killed[0].close()
    share = tmp_path / "shared" / "share-1.json"
    assert share.exists()
    again = writer_of(0)
    assert again.missing() == [(0, 4), (8, 10)] and not share.exists()
    assert writer_of(1).missing() == again.missing()
    with pytest.raises(ConfigError, match="rows 4 to 7 are not missing"):
        write(again, 4, 8)


@pytest.mark.parametrize("damage", ["chunk", "share"])
def test_what_is_damaged_of_a_share_is_written_again(writer_of, tmp_path, damage):
    killed = [writer_of(0), writer_of(1)]
    write(killed[1], 4, 8)
    killed[0].close()
    folder = tmp_path / "shared"
    if damage == "chunk":
        path = folder / "chunk-p1-00000.npy"
        path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    else:
        content = json.loads((folder / "share-1.json").read_text())
        content["chunks"][0]["stop"] = 9
        (folder / "share-1.json").write_text(json.dumps(content))
    assert writer_of(0).missing() == [(0, 10)]
