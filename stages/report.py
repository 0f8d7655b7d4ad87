"""Everything that was measured and written -> one HTML page to read it on. Run: thinkrec-stage report"""


def report() -> str:
    """Write the report: tables, curves, experts, and a browser of users with their reasons."""
    from thinkrec import artifacts
    from thinkrec.params import load
    from thinkrec.report.contents import contents_of_project
    from thinkrec.report.page import page

    contents, sections = contents_of_project(load())
    artifacts.write_text(artifacts.REPORT, page(contents, sections))
    shown_users, all_users = contents["included"]["users"]
    size = artifacts.REPORT.stat().st_size / 1e6
    return (
        f"{artifacts.REPORT}, {size:.1f} MB, {shown_users} of {all_users} test users to browse. {sections['headline']}"
    )
