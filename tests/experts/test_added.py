"""A group more: the others, and the space they lie in, stay; what of a file is of no use is counted or refused."""

import numpy as np
import pandas as pd
import pytest

from tests.experts.worlds import groups_at
from thinkrec.errors import UserError
from thinkrec.experts.added import add_group, read_members
from thinkrec.experts.rule import centroid_routing

USERS = pd.DataFrame({"user_id": ["a", "b", "c", "d", "e"]})
GROUPS = groups_at([1.0, 0.0], [0.0, 1.0], group=[0, 0, 1, 1, -1], mean=[10, 0], spread=[2, 1])  # e is not in train
VECTORS = np.asarray([[12, 0], [6, -2], [10, 1], [8, -4], [0, 0]], np.float32)


def files(folder, *contents):
    paths = [folder / f"{number}.txt" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return paths


def test_the_new_groups_centroid_is_its_users_mean_in_the_space_of_the_others():
    more = add_group(GROUPS, np.asarray([1, 3]), VECTORS)
    # (6, -2) and (8, -4) are (-2, -2) and (-1, -4) there.
    np.testing.assert_allclose(more.centroids, [[1, 0], [0, 1], [-1.5, -3]])
    assert more.group.tolist() == [0, 2, 1, 2, -1]
    assert (more.mean == GROUPS.mean).all() and (more.spread == GROUPS.spread).all()
    assert GROUPS.group.tolist() == [0, 0, 1, 1, -1]  # not changed in place
    weights = centroid_routing(VECTORS, more, 0.1)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert weights.argmax(1).tolist() == [1, 3, 2, 3, 0]


def test_files_name_users_one_a_line(tmp_path):
    members, counts = read_members(files(tmp_path, "d\n\n b \nd\n", "\ufeffc\r\ne\nx\ny"), USERS, GROUPS)
    assert [users.tolist() for users in members] == [[1, 3], [2]]
    assert counts == [
        {"users": 2, "unknown": 0, "not_in_train": 0},
        {"users": 1, "unknown": 2, "not_in_train": 1},
    ]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (["a\n", ""], "1.txt: names nobody whom train knows; one id a line, as in column user_id of"),
        (["x\ne\n"], "0.txt: names nobody whom train knows"),
        (["a\nb\n", "c\nb\n"], "1.txt: user 'b' is in .*0.txt, too; keep each user in one file"),
        ([b"\xff\xfe\x00"], "0.txt: not UTF-8 text; save it as UTF-8, one user id a line"),
    ],
)
def test_what_cannot_be_added_is_refused_in_a_line(tmp_path, contents, message):
    with pytest.raises(UserError, match=message):
        read_members(files(tmp_path, *contents), USERS, GROUPS)


def test_a_file_that_is_not_there_and_groups_that_are_too_few_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.txt: no such file; experts.added should name files of user ids$"):
        read_members([tmp_path / "nowhere.txt"], USERS, GROUPS)
    with pytest.raises(UserError, match="cannot be read"):
        read_members([tmp_path], USERS, GROUPS)
    with pytest.raises(UserError, match=r"experts\.added: the users form 1 groups, .*; set experts.n to 2 or more"):
        read_members(files(tmp_path, "a"), USERS, groups_at([1.0, 0.0], group=[0, 0, 0, 0, -1]))
