"""When an answer counts: shared by eval.py and the goldens of whole answers (tools/reference/end_to_end.py)."""

import re


def iou(a, b):
    """Overlap of two answers' boxes, 0 when one has none."""
    m = [re.search(r"\((\d+),(\d+)\),\((\d+),(\d+)\)", s) for s in (a, b)]
    if not all(m):
        return 0.0
    (ax, ay, bx, by), (cx, cy, dx, dy) = ([int(v) for v in k.groups()] for k in m)
    inter = max(0, min(bx, dx) - max(ax, cx)) * max(0, min(by, dy) - max(ay, cy))
    union = (bx - ax) * (by - ay) + (dx - cx) * (dy - cy) - inter
    return inter / union if union > 0 else 0.0


def right(task, got, want):
    """Whether an answer counts."""
    if task == "box":
        got_name, want_name = (s.split("<|box_start|>")[0] for s in (got, want))
        return got_name == want_name and iou(got, want) >= 0.5
    return got == want
