//! The deterministic simulation: the real agent against the fake runtime, in virtual time, under seeded faults. The same
//! seed does the same, to the last step; one that breaks a promise is shrunk and told as a story.
//!
//! Start at `run()`, then `invariants.rs` (what is promised) and `faults.rs` (what can go wrong). `make simulate` runs more
//! seeds than a test does: `SIMULATE_SEEDS` says how many, `SIMULATE_SEED` runs just one and tells its story.

mod clock;
mod faults;
mod invariants;
mod model;
pub(crate) mod mutants;
mod pods;
mod random;
mod schedule;
mod trace;
mod watcher;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use schedule::Schedule;
use serde_json::{Value, json};
use trace::Trace;
use world::{Ground, World};

use crate::config::ENDING_DELAY;

/// In every run of the tests; `make simulate` does many more of them, optimized.
const SEEDS: u64 = 1_000;
/// Seeds within which each planted bug must be found.
const SEEDS_FOR_MUTANTS: u64 = 1_000;
/// So long a Pod has to come to rest once nothing is wrong: two of the longest back-offs.
const LONGEST_REST: Duration = Duration::from_mins(15);

/// A promise that was broken, and how it came to that.
struct Broken {
    promise: String,
    story: Vec<String>,
}

/// Runs a schedule to its end on a machine of its own.
async fn live(ground: &Ground, schedule: &Schedule, trace: Trace) -> Result<u64, Broken> {
    let mut world = World::new(ground, &schedule.plan, trace).await;
    let result = life(&mut world, schedule).await;
    let state = world.watcher.lock();
    let digest = state.trace.digest();
    match result {
        Ok(()) => Ok(digest),
        Err(promise) => Err(Broken { promise, story: state.trace.lines().to_vec() }),
    }
}

async fn life(world: &mut World<'_>, schedule: &Schedule) -> Result<(), String> {
    world.create();
    for step in &schedule.steps {
        world.pass(step.after).await;
        check(world)?;
        world.suffer(&step.fault).await;
        check(world)?;
    }
    world.settle().await;
    world.heal();
    world.spare_daemon();
    world.line(|| "-- nothing is wrong any more".to_owned());
    // A pass that failed for the disk is tried again after a second.
    world.pass(Duration::from_secs(3)).await;
    rest(world).await?;
    let rested = world.pod();
    world.delete(None);
    end(world).await?;
    let has_jobs = schedule.plan.apps().any(|app| app.life.is_some());
    match rested.filter(|pod| schedule.compares && !has_jobs && is_up(pod)) {
        Some(pod) => as_if_nothing_had_been(world, schedule, &pod).await,
        None => Ok(()),
    }
}

/// Whether all that a Pod has is running: then nothing that happened to it may be seen.
fn is_up(pod: &Value) -> bool {
    let apps = pod["status"]["containerStatuses"].as_array();
    pod["metadata"]["deletionTimestamp"].is_null()
        && apps.is_some_and(|apps| apps.iter().all(|app| app["state"]["running"].is_object()))
}

/// A Pod whose spec was the same all along, and that nothing happened to, has the same status.
async fn as_if_nothing_had_been(world: &mut World<'_>, schedule: &Schedule, pod: &Value) -> Result<(), String> {
    let mut fresh = World::new(world.ground(), &schedule.plan, Trace::default()).await;
    fresh.create_as(pod);
    rest(&mut fresh).await.map_err(|broken| format!("undisturbed: {broken}"))?;
    let (disturbed, undisturbed) = (essence(pod), essence(&fresh.pod().unwrap_or_default()));
    if disturbed == undisturbed {
        return Ok(());
    }
    Err(format!("what happened is still to be seen: {disturbed}\nundisturbed: {undisturbed}"))
}

/// A status without times, names, counts, and the past.
fn essence(pod: &Value) -> Value {
    let status = &pod["status"];
    let containers = ["initContainerStatuses", "containerStatuses"].map(|list| {
        let statuses = status[list].as_array().into_iter().flatten();
        let essence = statuses.map(|status| {
            let state = status["state"].as_object().and_then(|state| state.iter().next());
            let state = state.map(|(state, detail)| json!([state, detail["reason"], detail["exitCode"]]));
            let common = json!([status["name"], status["ready"], status["started"], status["volumeMounts"], state]);
            // What is done stays as it was, whatever has become of its spec.
            let living = status["state"]["running"].is_object();
            let own = ["image", "imageID", "resources", "allocatedResources"].map(|field| &status[field]);
            json!([common, living.then_some(own)])
        });
        essence.collect::<Vec<_>>()
    });
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let conditions =
        conditions.map(|one| json!([one["type"], one["status"], one["reason"], one["message"]])).collect::<Vec<_>>();
    json!({
        "phase": status["phase"], "reason": status["reason"], "message": status["message"],
        "qosClass": status["qosClass"], "conditions": conditions, "containers": containers,
        "addresses": status["podIPs"].as_array().map(Vec::len),
    })
}

/// Within a bounded time the Pod is as it should be.
async fn rest(world: &mut World<'_>) -> Result<(), String> {
    let (mut rested, mut pause) = (Duration::ZERO, Duration::from_millis(1));
    loop {
        world.pass(pause).await;
        check(world)?;
        let state = world.watcher.lock();
        let broken =
            state.pods.iter().find_map(|(uid, pod)| Some((uid.clone(), invariants::has_converged(pod).err()?)));
        drop(state);
        let Some((uid, broken)) = broken else { return Ok(()) };
        rested += pause;
        if rested > LONGEST_REST {
            return Err(format!("{uid} does not come to rest: {broken}"));
        }
        pause = (pause * 2).clamp(Duration::from_secs(1), Duration::from_mins(2));
    }
}

/// Within its grace period the Pod is gone, and nothing of it is left.
async fn end(world: &mut World<'_>) -> Result<(), String> {
    for pause in [1, 1000, 5000, 30_000, 60_000] {
        world.pass(Duration::from_millis(pause)).await;
        check(world)?;
        if world.pod().is_none() && world.leftovers().is_empty() {
            return Ok(());
        }
    }
    let object = if world.pod().is_some() { "its object, " } else { "" };
    Err(format!("of a deleted Pod is left: {object}{}", world.leftovers().join(", ")))
}

/// What is promised at every moment, and what is once everybody rests.
fn check(world: &mut World<'_>) -> Result<(), String> {
    world.note_failures();
    let quiet = world.is_quiet();
    let mut state = world.watcher.lock();
    if let Some(broken) = state.broken() {
        return Err(broken);
    }
    if !quiet || !state.is_still() {
        return Ok(());
    }
    let now = state.now();
    for pod in state.pods.values_mut() {
        pod.closed |= pod.deleted;
        // What has ended of a Pod that is ending is told a little later.
        if !pod.gone && !pod.has_ended_within(ENDING_DELAY, now) {
            invariants::status_is_true(pod)?;
        }
    }
    Ok(())
}

/// One thread, whose time stands still until everybody waits.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

fn run(ground: &Ground, schedule: &Schedule, trace: Trace) -> Result<u64, Broken> {
    block_on(live(ground, schedule, trace))
}

fn ground() -> Ground {
    block_on(Ground::new())
}

/// Tells how a seed breaks a promise, with as few faults as do.
fn tell(ground: &Ground, seed: u64) -> Option<String> {
    let whole = Schedule::of(seed);
    let Err(broken) = run(ground, &whole, Trace::default()) else { return None };
    let fails = |schedule: &Schedule| {
        run(ground, schedule, Trace::default()).is_err_and(|other| other.promise == broken.promise)
    };
    let schedule = whole.shrunk(fails);
    let Err(told) = run(ground, &schedule, Trace::kept()) else {
        return Some(format!("seed {seed}: {}", broken.promise));
    };
    Some(format!("seed {seed}: {}\n{:#?}\n{}", told.promise, schedule.plan, told.story.join("\n")))
}

/// The first seed below `seeds` that breaks a promise, by as many threads as there are processors.
fn first_broken(seeds: u64, mutant: Option<mutants::Mutant>) -> Option<u64> {
    let (next, broken) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let all = number("SIMULATE_ALL").is_some();
    let work = || {
        let ground = ground();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.min(broken.load(Ordering::Relaxed)) {
                return;
            }
            mutants::plant(mutant);
            if let Err(told) = run(&ground, &Schedule::of(seed), Trace::default()) {
                if all {
                    eprintln!("seed {seed}: {}", told.promise);
                } else {
                    broken.fetch_min(seed, Ordering::Relaxed);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    Some(broken.into_inner()).filter(|seed| *seed != u64::MAX)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[test]
fn pods_keep_their_promises_under_faults() {
    let broken = match number("SIMULATE_SEED") {
        Some(seed) => Some(seed),
        None => first_broken(number("SIMULATE_SEEDS").unwrap_or(SEEDS), None),
    };
    if let Some(told) = broken.and_then(|seed| tell(&ground(), seed)) {
        panic!("{told}");
    }
}

#[test]
fn a_seed_does_the_same_each_time() {
    let once = || (0..50).map(|seed| run(&ground(), &Schedule::of(seed), Trace::kept()).ok()).collect::<Vec<_>>();
    assert_eq!(once(), once());
}

#[test]
fn every_planted_bug_is_found() {
    for mutant in mutants::MUTANTS {
        let found = first_broken(SEEDS_FOR_MUTANTS, Some(mutant));
        assert!(found.is_some(), "{mutant:?} is not found within {SEEDS_FOR_MUTANTS} seeds");
        eprintln!("{mutant:?} is found by seed {}", found.unwrap());
    }
}
