"""Rollouts of thousands of pods that do not go well, and whether the deployer meets its goals."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rollout_bed import account
from rollout_cluster import CountingProxy, add_node
from rollout_run import Run

if TYPE_CHECKING:
    from scale import Crowd, Witness

    Watch = Callable[[Crowd, str], Witness]

NAMED_SECONDS = 2
CAUGHT_UP_SECONDS = 1
AWAY_SECONDS = 2
PULL_SECONDS = 4
BROKEN = "broken"
"""The node that cannot pull the image, and the seconds from its pod to that status."""


def image_missing(crowd: "Crowd", _: "Watch") -> bool:
    """One node cannot pull the image. The deployer names its pod soon after its status, while all others start."""
    add_node(crowd.admin, BROKEN, room_for=1)
    cordon(crowd, True)  # so that the first pod goes there
    run = begin(crowd, 1)
    path = f"/api/v1/namespaces/{crowd.namespaces[0]}/pods?fieldSelector=spec.nodeName={BROKEN}"
    crowd.wait_for(lambda: crowd.admin.ask("GET", path)["items"])
    cordon(crowd, False)
    run.ends_with(1)
    [pod] = [each["metadata"]["name"] for each in crowd.admin.ask("GET", path)["items"]]
    status = min(each["answered"] for each in crowd.plane.audit() if f"/pods/{pod}/status" in each["requestURI"])
    named = min(said for said, line in zip(run.times, run.lines, strict=True) if pod in line)
    print("".join(run.lines[-8:]))
    return met(named - status, NAMED_SECONDS, f"from the status of {pod} to the line that names it")


def superseded(crowd: "Crowd", _: "Watch") -> bool:
    """Another commit is deployed in the middle of a rollout: the first run ends with 4, the second with 0."""
    first = begin(crowd, 1)
    await_half(crowd)
    second = begin(crowd, 2)
    first.ends_with(4)
    second.ends_with(0)
    print("".join([*first.lines[-3:], *second.lines[-3:]]))
    applied = next(said for said, line in zip(second.times, second.lines, strict=True) if "  applied; " in line)
    print(f"The first run ended with 4, {first.ended - applied:.2f} s after the second said that it had applied, which")
    print("ended with 0: met")
    return True


def restart(crowd: "Crowd", _: "Watch") -> bool:
    """The API server is restarted in the middle of a rollout: the pods are watched again soon after it is back."""
    run = begin(crowd, 1)
    await_half(crowd)
    gone = crowd.plane.restart_api_server()
    run.ends_with(0)
    after = [each for each in crowd.plane.audit() if each["received"] > gone]
    back = min(each["answered"] for each in after if each.get("responseStatus", {}).get("code") == 200)
    deployer = account(crowd.namespaces[0])
    again = min(each["answered"] for each in after if is_watch_of_pods(each, deployer))
    print("".join(run.lines[-12:]))
    print(f"The API server was away for {back - gone:.1f} s.")
    return met(again - back, CAUGHT_UP_SECONDS, "from the API server's first answer to the watch of the pods")


def cut(crowd: "Crowd", watch: "Watch") -> bool:
    """The deployer alone loses every connection in the middle of a rollout that continues: it catches up soon."""
    proxy = CountingProxy(crowd.plane.port)
    witness = watch(crowd, crowd.commits[1])
    run = begin(crowd, 1, port=proxy.port)
    await_half(crowd)
    back = proxy.cut(AWAY_SECONDS)
    run.ends_with(0)
    witness.end()
    print("".join(run.lines[-12:]))
    return met(latest(witness, run, back), CAUGHT_UP_SECONDS, "from the event, or from the return, to the latest line")


SCENARIOS: dict[str, tuple[Callable[["Crowd", "Watch"], bool], int]] = {
    "image-missing": (image_missing, 1000),
    "superseded": (superseded, 3000),
    "restart": (restart, 3000),
    "cut": (cut, 3000),
}
"""The usual number of pods."""


def begin(crowd: "Crowd", number: int, port: int = 0) -> Run:
    """Starts the deployer with this commit. Returns when it has applied."""
    return crowd.roll_out(crowd.namespaces[0], crowd.commits[number], (port, 0)).deployer


def cordon(crowd: "Crowd", is_cordoned: bool) -> None:
    for name in crowd.nodes:
        crowd.admin.merge(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": is_cordoned}})


def await_half(crowd: "Crowd") -> None:
    path = f"/apis/apps/v1/namespaces/{crowd.namespaces[0]}/deployments/request-info"

    def is_there() -> bool:
        deployment = crowd.admin.ask("GET", path)
        status, generation = deployment["status"], deployment["metadata"]["generation"]
        return bool(status["observedGeneration"] == generation and status.get("updatedReplicas", 0) > crowd.pods // 2)

    crowd.wait_for(is_there)


def is_watch_of_pods(event: dict[str, Any], user: str) -> bool:
    target = event.get("objectRef", {})
    is_taken = event.get("responseStatus", {}).get("code") == 200
    return (event["user"]["username"], event["verb"], target.get("resource")) == (user, "watch", "pods") and is_taken


def latest(witness: "Witness", run: Run, since: float) -> float:
    """The largest lag of the lines after that moment, counted from that moment at the earliest."""
    lags = [(said, late) for (_, late), said in zip(witness.lags(run), told_at(run), strict=True)]
    return max(min(late, said - since) for said, late in lags if said > since)


def told_at(run: Run) -> list[float]:
    words = (" are available (", " is available (", "  replaced: ")
    return [said for said, line in zip(run.times, run.lines, strict=True) if any(word in line for word in words)]


def met(seconds: float, goal: float, what: str) -> bool:
    is_met = seconds <= goal
    print(f"{what}: {seconds:.2f} s, at most {goal} s: {'met' if is_met else 'MISSED'}", flush=True)
    return is_met
