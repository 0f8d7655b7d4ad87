"""Everything that was measured and written -> one HTML page to read it on. Run: thinkrec-stage report"""


def report() -> str:
    """Write the report: tables, curves, experts, and a browser of users with their reasons."""
    from thinkrec import artifacts
    from thinkrec.params import load
    from thinkrec.report.contents import contents_of_project
    from thinkrec.report.page import page

    contents = contents_of_project(load())
    artifacts.write_text(artifacts.REPORT, page(contents))
    shown_users, all_users = contents["included"]["users"]
    auc = contents["tables"]["test"]["models"][0]["values"]["auc"]
    size = artifacts.REPORT.stat().st_size / 1e6
    measured = "of one class, no AUC" if auc is None else f"AUC {auc:.4f}"
    return f"{artifacts.REPORT}, {size:.1f} MB: test {measured}, {shown_users} of {all_users} test users to browse"
