//! What must be true whatever happens (the design, "The life of a Pod"), each said as what may happen when.

use std::time::Duration;

use runtime::fake::RunFact;
use serde_json::Value;

use super::model::{CrashLoop, Moment, PodModel, Run};
use super::pods::{ContainerPlan, Kind};

type Promise = Result<(), String>;

/// Whatever is left of a grace period, a container has this long (kubelet, `minimumGracePeriodInSeconds`).
const LEAST_GRACE: Duration = Duration::from_secs(2);
const FIRST_DELAY: Duration = Duration::from_secs(10);
const LONGEST_DELAY: Duration = Duration::from_mins(5);
const FORGIVEN_AFTER: Duration = Duration::from_mins(10);

/// A Pod gets a sandbox only while something of it may start.
pub fn may_have_sandbox(pod: &PodModel) -> Promise {
    starts_nothing_once_ended(pod, "a sandbox")?;
    if pod.plan.policy == "Never" && !pod.runs.is_empty() && !pod.forgotten {
        return Err("a Pod that never restarts gets another sandbox after it ran".to_owned());
    }
    Ok(())
}

fn starts_nothing_once_ended(pod: &PodModel, what: &str) -> Promise {
    if pod.terminal {
        return Err(format!("{what} starts in a Pod that has ended"));
    }
    if pod.closed {
        return Err(format!("{what} starts in a Pod that is being deleted"));
    }
    Ok(())
}

/// All that has to be true before a container starts.
pub fn may_start(pod: &mut PodModel, fact: &RunFact<'_>, now: Moment) -> Promise {
    let name = fact.name.as_str();
    starts_nothing_once_ended(pod, name)?;
    if pod.latest(name).is_some_and(Run::is_running) {
        return Err(format!("{name} starts while it runs"));
    }
    let in_sandbox = pod.sandbox.as_ref().is_some_and(|sandbox| sandbox.alive && sandbox.id == fact.sandbox.as_str());
    if !in_sandbox {
        return Err(format!("{name} starts in a sandbox that is gone"));
    }
    let started = pod.runs.get(name).into_iter().flatten().filter(|run| run.started);
    let highest = started.map(|run| run.attempt).max();
    let highest = highest.max(pod.counted.get(name).copied());
    if pod.restarting && pod.plan.container(name).is_some() {
        return Err(format!("{name} starts before all containers of the Pod are gone"));
    }
    if !pod.forgotten && highest.is_some_and(|highest| fact.attempt <= highest) {
        return Err(format!("{name} starts as run {} after run {highest:?}", fact.attempt));
    }
    let in_hook = pod.running().find(|(name, run)| {
        !run.post_start_passed && pod.plan.container(name).is_some_and(|container| container.post_start)
    });
    if let Some((hooked, _)) = in_hook {
        return Err(format!("{name} starts before the postStart hook of {hooked} has returned"));
    }
    let Some(container) = pod.plan.container(name).cloned() else {
        // An ephemeral container: it starts once.
        return if pod.latest(name).is_some() && !pod.forgotten { Err(format!("{name} starts again")) } else { Ok(()) };
    };
    it_is_its_turn(pod, &container, fact.sandbox.as_str())?;
    its_policy_allows(pod, &container, fact.sandbox.as_str())?;
    its_back_off_is_over(pod, &container, fact.image, now)
}

/// Init containers are done and sidecars were started before what follows them, in each sandbox anew.
fn it_is_its_turn(pod: &PodModel, container: &ContainerPlan, sandbox: &str) -> Promise {
    let ran_here = |name: &str| pod.runs.get(name).into_iter().flatten().any(|run| run.sandbox == sandbox);
    let apps_ran = pod.plan.apps().any(|app| ran_here(&app.name));
    if container.kind == Kind::Init && apps_ran {
        return Err(format!("{} starts after app containers", container.name));
    }
    if ran_here(&container.name) || (container.kind == Kind::App && apps_ran) {
        return Ok(());
    }
    let before = pod.plan.containers.iter().take_while(|other| other.kind != Kind::App && other.name != container.name);
    let missing = before.into_iter().find(|other| !pod.was_done_in(&other.name, sandbox));
    missing.map_or(Ok(()), |other| Err(format!("{} starts before {} is done", container.name, other.name)))
}

fn its_policy_allows(pod: &PodModel, container: &ContainerPlan, sandbox: &str) -> Promise {
    let Some(last) = pod.latest(&container.name) else { return Ok(()) };
    let Some((code, _)) = last.exit else { return Ok(()) };
    // A new sandbox initializes anew.
    if container.kind == Kind::Init && last.sandbox != sandbox {
        return Ok(());
    }
    if container.kind == Kind::Init && code == 0 {
        return Err(format!("{} starts again though it is done", container.name));
    }
    let policy = pod.plan.policy;
    // That it is to be replaced may have been decided before it ended by itself.
    let replaced = last.outdated || (last.sandbox != sandbox && container.runs_in_each_sandbox(policy));
    let failed = last.condemned && container.starts_again(policy, code.max(1));
    if replaced || failed || container.starts_again(policy, code) {
        return Ok(());
    }
    Err(format!("{} starts again after {code} though its policy forbids it", container.name))
}

/// The kubelet's crash loop: the first restart is immediate, the next waits 10 s, twice as long each time up to 5 min,
/// from the end of the run before; 10 min of running, or another image, end it.
fn its_back_off_is_over(pod: &mut PodModel, container: &ContainerPlan, image: &str, now: Moment) -> Promise {
    let Some(last) = pod.latest(&container.name) else { return Ok(()) };
    let Some((_, ended)) = last.exit else { return Ok(()) };
    // Of one that was ended for its probe or its image the wait is that of the run before it.
    let excused = last.stop_asked && (last.outdated || last.condemned);
    let present = pod
        .loops
        .get(&container.name)
        .filter(|present| present.image == image && ended.since(present.since) <= FORGIVEN_AFTER);
    let (wait, next) = present.map_or((Duration::ZERO, FIRST_DELAY), |present| (present.delay, present.delay * 2));
    if excused {
        return Ok(());
    }
    let waited = now.since(ended);
    let crash_loop = CrashLoop { image: image.to_owned(), delay: next.min(LONGEST_DELAY), since: ended };
    pod.loops.insert(container.name.clone(), crash_loop);
    if waited < wait {
        return Err(format!("{} starts {waited:?} after its end, and should have waited {wait:?}", container.name));
    }
    Ok(())
}

/// A container is asked to end only for a reason, after its preStop hook, and a sidecar after what it serves.
pub fn may_stop(pod: &PodModel, fact: &RunFact<'_>, grace: Duration, now: Moment) -> Promise {
    let name = fact.name.as_str();
    let found = pod.runs.get(name).into_iter().flatten().find(|run| run.id == fact.id.as_str());
    let Some(run) = found.filter(|run| run.is_running() && !run.stop_asked) else { return Ok(()) };
    let condemned = run.condemned || run.outdated;
    if !condemned && !pod.may_end(now) {
        return Err(format!("{name} is stopped without a reason"));
    }
    if pod.gone || grace <= LEAST_GRACE {
        return Ok(());
    }
    let Some(place) = pod.plan.containers.iter().position(|container| container.name == name) else { return Ok(()) };
    if pod.plan.containers[place].pre_stop && !run.pre_stop_ended {
        return Err(format!("{name} is stopped before its preStop hook has returned"));
    }
    if pod.plan.containers[place].kind != Kind::Sidecar || condemned {
        return Ok(());
    }
    let later = pod.plan.containers.iter().skip(place + 1).filter(|other| other.kind != Kind::Init);
    let runs = later.into_iter().find(|other| pod.latest(&other.name).is_some_and(Run::is_running));
    runs.map_or(Ok(()), |other| Err(format!("{name} is stopped before {} has ended", other.name)))
}

/// The object of a deleted Pod goes last.
pub fn nothing_is_left(pod: &PodModel) -> Promise {
    if let Some((name, _)) = pod.running().next() {
        return Err(format!("the object is gone, and {name} runs"));
    }
    if pod.sandboxes.is_empty() { Ok(()) } else { Err("the object is gone, and a sandbox is left".to_owned()) }
}

/// What a status says agrees with itself, with the one before it, and with what happened.
pub fn status_is_sound(pod: &PodModel, object: &Value) -> Promise {
    let (before, status) = (&pod.published, &object["status"]);
    let phase = status["phase"].as_str().unwrap_or_default();
    let phase_before = before["phase"].as_str().unwrap_or("Pending");
    if matches!(phase_before, "Succeeded" | "Failed") && phase != phase_before {
        return Err(format!("the phase goes from {phase_before} to {phase}"));
    }
    let initialized = pod.sandbox.as_ref().is_some_and(|sandbox| sandbox.alive && sandbox.app_was_created);
    if (phase_before, phase) == ("Running", "Pending") && initialized {
        return Err("the phase goes back to Pending in the same sandbox".to_owned());
    }
    if matches!(phase, "Succeeded" | "Failed") {
        ended_well_said(pod, phase, status)?;
    }
    for (list, of) in [("initContainerStatuses", false), ("containerStatuses", true)] {
        let wanted = pod.plan.containers.iter().filter(|container| (container.kind == Kind::App) == of);
        for container in wanted {
            let own = |status: &Value| find(&status[list], "name", &container.name).cloned().unwrap_or_default();
            container_is_sound(pod, container, phase, &own(before), &own(status))?;
        }
    }
    conditions_are_sound(pod, phase, before, status)?;
    let (old, new) = (&before["startTime"], &status["startTime"]);
    if old.is_string() && old != new {
        return Err(format!("startTime goes from {old} to {new}"));
    }
    let observed = |status: &Value| status["observedGeneration"].as_i64().unwrap_or_default();
    if observed(status) < observed(before) || observed(status) > object["metadata"]["generation"].as_i64().unwrap_or(0)
    {
        return Err(format!("observedGeneration goes from {} to {}", observed(before), observed(status)));
    }
    Ok(())
}

fn ended_well_said(pod: &PodModel, phase: &str, status: &Value) -> Promise {
    if let Some((name, _)) = pod.running().next() {
        return Err(format!("the Pod is {phase}, and {name} runs"));
    }
    let codes: Vec<_> =
        pod.plan.apps().map(|app| pod.latest(&app.name).and_then(|run| run.exit).map(|(code, _)| code)).collect();
    let well = codes.iter().all(|code| *code == Some(0));
    if phase == "Succeeded" && !well {
        return Err(format!("the Pod has succeeded with {codes:?}"));
    }
    let inits = pod.plan.containers.iter().filter(|container| container.kind == Kind::Init);
    let mut init_codes = inits.map(|init| pod.latest(&init.name).and_then(|run| run.exit).map(|(code, _)| code));
    let init_well = init_codes.all(|code| code == Some(0));
    if phase == "Failed" && well && init_well && !status["reason"].is_string() {
        return Err("the Pod has failed, and all of its containers ended well".to_owned());
    }
    Ok(())
}

fn container_is_sound(
    pod: &PodModel,
    container: &ContainerPlan,
    phase: &str,
    before: &Value,
    status: &Value,
) -> Promise {
    let name = &container.name;
    if status.is_null() {
        return if before.is_null() { Ok(()) } else { Err(format!("the status of {name} is gone")) };
    }
    let count = |status: &Value| status["restartCount"].as_u64().unwrap_or_default();
    if count(status) < count(before) {
        return Err(format!("restartCount of {name} goes from {} to {}", count(before), count(status)));
    }
    let is_in = ["running", "waiting", "terminated"].map(|state| status["state"][state].is_object());
    if is_in.iter().filter(|is| **is).count() != 1 {
        return Err(format!("{name} is in no state, or in several: {}", status["state"]));
    }
    let [runs, waits, _] = is_in;
    if matches!(phase, "Succeeded" | "Failed") && runs {
        return Err(format!("the Pod is {phase}, and says that {name} runs"));
    }
    if phase == "Running" && waits && status["lastState"]["terminated"].is_null() && container.kind == Kind::App {
        return Err(format!("the Pod is Running, and {name} waits for its first run"));
    }
    let is = |field: &str| status[field] == true;
    if container.kind != Kind::Init && ((is("ready") && !is("started")) || (is("started") && !runs)) {
        return Err(format!("{name} is ready or started and does not run: {status}"));
    }
    if container.kind == Kind::Init && is("ready") != (status["state"]["terminated"]["exitCode"] == 0) {
        return Err(format!("{name} is ready and not done, or the other way round: {status}"));
    }
    let told = status["containerID"].as_str().and_then(|id| id.strip_prefix("monopod://"));
    let run = told.and_then(|id| pod.runs.get(name).into_iter().flatten().find(|run| run.id == id));
    match run {
        Some(run) if u64::from(run.attempt) > count(status) => Err(format!("{name} says less restarts than it had")),
        Some(run) if runs && container.startup.is_some() && is("started") && !run.startup_passed => {
            Err(format!("{name} has started before its startup probe passed"))
        }
        Some(run) if runs && container.post_start && !run.post_start_passed => {
            Err(format!("{name} is said to run before its postStart hook returned"))
        }
        None if runs => Err(format!("{name} is said to run as {told:?}, which never started")),
        Some(_) | None => Ok(()),
    }
}

fn conditions_are_sound(pod: &PodModel, phase: &str, before: &Value, status: &Value) -> Promise {
    let condition =
        |status: &Value, type_: &str| find(&status["conditions"], "type", type_).cloned().unwrap_or_default();
    if status["containerStatuses"].is_array() {
        let wanted = pod.plan.containers.iter().filter(|container| container.kind != Kind::Init);
        let lists = || ["initContainerStatuses", "containerStatuses"].iter().filter_map(|list| status[list].as_array());
        let is_ready = |name: &str| lists().flatten().any(|status| status["name"] == name && status["ready"] == true);
        let all = wanted.into_iter().all(|container| is_ready(&container.name));
        let wanted = if all && !matches!(phase, "Succeeded" | "Failed") { "True" } else { "False" };
        for type_ in ["ContainersReady", "Ready"] {
            let told = &condition(status, type_)["status"];
            if *told != wanted {
                return Err(format!("{type_} is {told}, and the containers say {wanted}"));
            }
        }
    }
    for now in status["conditions"].as_array().into_iter().flatten() {
        let old = condition(before, now["type"].as_str().unwrap_or_default());
        let moved = now["lastTransitionTime"] != old["lastTransitionTime"];
        if !old.is_null() && old["status"] == now["status"] && moved {
            return Err(format!("{} has a new lastTransitionTime and the same status", now["type"]));
        }
    }
    Ok(())
}

/// What the status says of a Pod once the agent has nothing to do: the same as the runtime.
pub fn status_is_true(pod: &PodModel) -> Promise {
    for container in &pod.plan.containers {
        let list = if container.kind == Kind::App { "containerStatuses" } else { "initContainerStatuses" };
        let Some(status) = find(&pod.published[list], "name", &container.name) else { continue };
        let told = status["containerID"].as_str().filter(|_| status["state"]["running"].is_object());
        let told = told.and_then(|id| id.strip_prefix("monopod://"));
        let hidden = |run: &&Run| container.post_start && !run.post_start_passed;
        let runs =
            pod.latest(&container.name).filter(|run| run.is_running() && !hidden(run)).map(|run| run.id.as_str());
        if told != runs {
            return Err(format!("{} is said to run as {told:?}, and runs as {runs:?}", container.name));
        }
    }
    Ok(())
}

/// What a Pod comes to once nothing disturbs it any more.
pub fn has_converged(pod: &PodModel) -> Promise {
    if pod.gone || pod.terminal {
        return match pod.running().next() {
            Some((name, _)) => Err(format!("{name} still runs")),
            None if pod.sandboxes.is_empty() => Ok(()),
            None => Err("its sandbox is still there".to_owned()),
        };
    }
    if pod.deleted {
        return Err("it is deleted and still there".to_owned());
    }
    if pod.published["reason"] == super::world::EVICTED {
        return Err("it is evicted and has not ended".to_owned());
    }
    if pod.restarting {
        return Err("not all of its containers were restarted".to_owned());
    }
    granted_is_what_was_asked_for(pod)?;
    for container in &pod.plan.containers {
        let Some(run) = pod.latest(&container.name) else { return Err(format!("{} never ran", container.name)) };
        let list = if container.kind == Kind::App { "containerStatuses" } else { "initContainerStatuses" };
        let status = find(&pod.published[list], "name", &container.name);
        let ready = status.is_some_and(|status| status["ready"] == true);
        // Somebody may have changed the image and changed it back before anybody looked.
        let is_wanted = pod.images.get(&container.name).is_none_or(|image| *image == run.image);
        match (container.kind, run.exit) {
            (Kind::Init, Some((0, _))) => {}
            (Kind::Sidecar | Kind::App, None) if ready && is_wanted => {}
            // A job that starts again after it is done.
            (Kind::App, _) if container.life.is_some() && container.starts_again(pod.plan.policy, 0) => {}
            (Kind::App, Some((code, _))) if !container.starts_again(pod.plan.policy, code) => {}
            (Kind::App, Some(_)) if !container.starts_again(pod.plan.policy, 1) => {}
            (_, exit) => return Err(format!("{} is not as it should be: {exit:?}, {status:?}", container.name)),
        }
    }
    let for_good = |app: &ContainerPlan, code: i32| !app.starts_again(pod.plan.policy, code);
    let ended = |app: &ContainerPlan| {
        pod.latest(&app.name).and_then(|run| run.exit).is_some_and(|(code, _)| for_good(app, code))
    };
    if pod.plan.apps().all(ended) {
        return Err("all its containers are done, and it has not ended".to_owned());
    }
    Ok(())
}

/// A resize in place has been carried out: the node has room for all of them.
fn granted_is_what_was_asked_for(pod: &PodModel) -> Promise {
    for container in &pod.plan.containers {
        let list = if container.kind == Kind::App { "containerStatuses" } else { "initContainerStatuses" };
        let status = find(&pod.published[list], "name", &container.name);
        let Some(status) = status.filter(|status| status["state"]["running"].is_object()) else { continue };
        let wanted = pod.cpu.get(&container.name).map_or("", String::as_str);
        for granted in [&status["allocatedResources"]["cpu"], &status["resources"]["requests"]["cpu"]] {
            if granted != wanted {
                return Err(format!("{} asks for {wanted} of CPU and has {granted}", container.name));
            }
        }
    }
    Ok(())
}

fn find<'a>(list: &'a Value, key: &str, wanted: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| item[key] == wanted)
}
