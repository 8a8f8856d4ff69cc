"""Writes that a disk refuses, here because no file may grow beyond 16 KiB: python on_a_full_disk.py FOLDER"""

import resource
import sys
from pathlib import Path


def main(folder: Path) -> None:
    import numpy as np

    from jaxgkd.errors import JaxgkdError
    from jaxgkd.teachers import StoreWriter
    from jaxgkd.teachers.answers import Answer, AnswerFile
    from jaxgkd.teachers.manifest import Manifest, item_ids_hash
    from jaxgkd.training.checkpoint import load_orbax, save_tree
    from jaxgkd.training.underway import keeping, underway
    from jaxgkd.whole_file import write_whole

    large = np.random.default_rng(0).integers(256, size=100_000).astype(np.uint8)
    ids = [str(i) for i in range(4)]
    manifest = Manifest("t", "w", "k", "p", "d", item_ids_hash(ids), 4, 4, "mean", (0,), 10_000, 8)
    (folder / "file").write_bytes(b"before")
    load_orbax()

    def store() -> None:
        with StoreWriter(folder / "store", manifest, ids) as writer:
            writer.write(0, np.ones((4, 1, 10_000), np.float32))

    def training() -> None:
        with keeping(folder / "kept", 0.0), underway("a") as training:
            training.reached(1, lambda: {"state": large})

    def answers() -> None:
        with AnswerFile(folder / "answers.jsonl") as file:
            file.append(Answer("C", "short"))
            file.append(Answer("CC", "long" * 10_000))

    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, resource.RLIM_INFINITY))
    for write in (
        lambda: write_whole(folder / "file", large.tobytes()),
        lambda: save_tree(folder / "tree", {"a": large}),
        store,
        training,
        answers,
    ):
        try:
            write()
        except JaxgkdError as error:
            print(error)
        else:
            raise SystemExit("nothing was refused")
    assert (folder / "file").read_bytes() == b"before"
    left = sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())
    assert not any("chunk" in each or "tree" in each or "/0" in each for each in left), left
    assert (folder / "answers.jsonl").read_text().count("\n") == 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
