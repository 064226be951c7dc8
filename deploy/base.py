"""Which version of the template a clone came from, also when it shares no history with it."""

from deploy.clone import Refused, ask

FETCHED = "refs/template"
ENOUGH = 0.5  # of the template's files, as they are in the clone; fewer are no resemblance


def find_base(given: str, recorded: str, target: str) -> str:
    """Return the template's commit that a clone came from.

    As given, as recorded, or shared by both histories, as in a fork; else the one whose files are most alike, as after
    a download or "use this template". Raises Refused when that is none.
    """
    if given:
        if found := find_version(given):
            return found
        raise Refused(f"the template has no {given}: BASE is the version that this clone came from")
    if recorded and _is_template_s(recorded):
        return recorded
    shared = ask("merge-base", "HEAD", target)
    return shared or most_alike()


def find_version(given: str) -> str:
    """Return the template's commit that a tag, a branch or a commit names, in this order; "" when it has none."""
    names = (f"{FETCHED}/tags/{given}", f"{FETCHED}/heads/{given}", given)
    commits = (ask("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") for name in names)
    return next((found for found in commits if found and _is_template_s(found)), "")


def most_alike() -> str:
    """Return the commit of which most files are in the clone as they are, now or in its first commit."""
    first = ask("rev-list", "--max-parents=0", "HEAD").split()
    own = [_files(commit) for commit in ("HEAD", *first)]
    best, found = 0.0, ""
    for commit in ask("rev-list", f"--glob={FETCHED}/*").split():
        files = _files(commit)
        alike = max(len(files & one) / (len(files | one) or 1) for one in own)
        if alike > best:
            best, found = alike, commit
    if best < ENOUGH:
        raise Refused("it cannot be told which version of the template this clone came from: say it by BASE=v1.2.0")
    return found


def _files(commit: str) -> frozenset[str]:
    """Return a commit's files, each as its name with what is in it."""
    return frozenset(ask("ls-tree", "-r", commit).splitlines())


def _is_template_s(commit: str) -> bool:
    return bool(ask("for-each-ref", "--contains", commit, "--count=1", FETCHED))
