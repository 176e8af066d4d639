//! Measures what the store promises: durable writes a second with many writers, the wait of one, and opening after
//! kill -9. Prints min / median / p95, and the machine's own fdatasync to read them against.
//!
//! `cargo bench -p monopod-store`; the files lie in `TMPDIR`.

#![expect(clippy::print_stdout, reason = "a benchmark reports to a person")]

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use store::{Change, ObjectKey, Store};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const WRITERS: usize = 64;
const CREATES: usize = 6400;
const MANY: usize = 10_000;
const RUNS: usize = 9;
/// Set in the process that is killed: the directory it writes to.
const VICTIM: &str = "STORE_BENCH_VICTIM";
/// Set in the process that is measured: the directory it opens.
const RESIDENT: &str = "STORE_BENCH_RESIDENT";
/// Set in it if it is to write much.
const BURST: &str = "STORE_BENCH_BURST";

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(directory) = std::env::var_os(VICTIM) {
        return runtime.block_on(write_until_killed(Path::new(&directory)));
    }
    if let Some(directory) = std::env::var_os(RESIDENT) {
        return print_memory(Path::new(&directory));
    }
    for objects in [0, 500, MANY] {
        let resident = runtime.block_on(measure_memory(objects))?;
        println!("resident with {objects} objects of {} bytes of JSON: {resident}", pod("pod-1234").to_string().len());
    }
    println!("resident after a burst: {}", measure_burst()?);
    println!("{:<58} {:>10} {:>10} {:>10}", "", "min", "median", "p95");
    report("fdatasync of 4 KiB appended (floor of one fsync)", measure_fdatasync()?);
    report("one write at a time, durable", runtime.block_on(measure_single(500, Duration::ZERO))?);
    let pause = Duration::from_millis(5);
    report("one write at a time, after a pause of 5 ms", runtime.block_on(measure_single(200, pause))?);
    report(&format!("{CREATES} creates by {WRITERS} writers"), runtime.block_on(measure_creates())?);
    report("1,000 creates at once", runtime.block_on(measure_at_once())?);
    report("list of 1,000 objects", runtime.block_on(measure_list())?);
    for objects in [0, 1_000, MANY] {
        let times = (0..RUNS).map(|_| measure_open(objects, false)).collect::<Outcome<Vec<_>>>()?;
        report(&format!("open after kill -9 with {objects} objects"), times);
    }
    let times = (0..RUNS).map(|_| measure_open(MANY, true)).collect::<Outcome<Vec<_>>>()?;
    report(&format!("open after kill -9 with {MANY} objects deleted"), times);
    Ok(())
}

/// The memory of a fresh process that has a store of many objects open.
async fn measure_memory(objects: usize) -> Outcome<String> {
    let directory = tempfile::tempdir()?;
    create_many(&Store::open(directory.path())?, objects).await?;
    #[expect(clippy::disallowed_methods, reason = "a fresh process has to be measured")]
    let output = Command::new(std::env::current_exe()?).env(RESIDENT, directory.path()).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn print_memory(directory: &Path) -> Outcome<()> {
    if std::env::var_os(BURST).is_some() {
        return burst(directory);
    }
    let _store = Store::open(directory)?;
    println!("{}", resident()?);
    Ok(())
}

fn resident() -> Outcome<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    Ok(status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?.trim().to_owned())
}

/// The memory of a process in which 500 objects have been written ten times, and how much of that a watcher could still read.
fn measure_burst() -> Outcome<String> {
    let directory = tempfile::tempdir()?;
    #[expect(clippy::disallowed_methods, reason = "a fresh process has to be measured")]
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.env(RESIDENT, directory.path()).env(BURST, "1").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn burst(directory: &Path) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let store = Store::open(directory)?;
    for _ in 0..5 {
        runtime.block_on(create_many(&store, 500))?;
        runtime.block_on(write_by(&store, 500, WRITERS, touch))?;
    }
    let oldest = store.watch("pods", Some(0)).err().map_or(0, |expired| expired.oldest);
    println!("{}; the newest {} of 5000 changes can be read", resident()?, store.revision() - oldest);
    Ok(())
}

fn measure_fdatasync() -> Outcome<Vec<Duration>> {
    let directory = tempfile::tempdir()?;
    let mut file = File::create(directory.path().join("file"))?;
    let once = |_| {
        file.write_all(&[7; 4096])?;
        let start = Instant::now();
        file.sync_data()?;
        Ok(start.elapsed())
    };
    (0..200).map(once).collect()
}

async fn measure_single(writes: usize, pause: Duration) -> Outcome<Vec<Duration>> {
    let directory = tempfile::tempdir()?;
    let store = Store::open(directory.path())?;
    let mut times = Vec::new();
    for number in 0..writes {
        tokio::time::sleep(pause).await;
        let start = Instant::now();
        create(store.clone(), number).await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

async fn measure_creates() -> Outcome<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let directory = tempfile::tempdir()?;
        let store = Store::open(directory.path())?;
        let (start, processor) = (Instant::now(), processor_time());
        create_many(&store, CREATES).await?;
        let (took, commits) = (start.elapsed(), store.commits());
        // With what is done later.
        drop(store);
        let processor = processor_time() - processor;
        let a_second = CREATES * 1_000_000 / usize::try_from(took.as_micros())?;
        println!("  {a_second} creates/s, {commits} commits, {processor} ms of processor time");
        times.push(took);
    }
    Ok(times)
}

/// Milliseconds of all threads.
fn processor_time() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

/// As many writers as objects.
async fn measure_at_once() -> Outcome<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let directory = tempfile::tempdir()?;
        let store = Store::open(directory.path())?;
        let start = Instant::now();
        create_by(&store, 1000, 1000).await?;
        times.push(start.elapsed());
        println!("  1,000 creates in {} commits", store.commits());
    }
    Ok(times)
}

async fn measure_list() -> Outcome<Vec<Duration>> {
    let directory = tempfile::tempdir()?;
    let store = Store::open(directory.path())?;
    create_many(&store, 1_000).await?;
    let once = |_| {
        let start = Instant::now();
        let list = store.list("pods", None);
        let took = start.elapsed();
        if list.objects.len() == 1_000 { Ok(took) } else { Err("objects are missing".into()) }
    };
    (0..200).map(once).collect()
}

/// Opens a store whose process was killed while it wrote.
fn measure_open(objects: usize, deleted: bool) -> Outcome<Duration> {
    let directory = tempfile::tempdir()?;
    #[expect(clippy::disallowed_methods, reason = "a process has to be killed")]
    let mut victim = Command::new(std::env::current_exe()?)
        .env(VICTIM, directory.path())
        .env("STORE_BENCH_OBJECTS", objects.to_string())
        .envs(deleted.then_some(("STORE_BENCH_DELETE", "1")))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(victim.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
    victim.kill()?;
    victim.wait()?;
    let start = Instant::now();
    let store = Store::open(directory.path())?;
    let took = start.elapsed();
    let expected = if deleted { 0 } else { objects };
    if store.list("pods", None).objects.len() < expected { Err("objects are missing".into()) } else { Ok(took) }
}

async fn write_until_killed(directory: &Path) -> Outcome<()> {
    let objects = std::env::var("STORE_BENCH_OBJECTS")?.parse()?;
    let store = Store::open(directory)?;
    create_many(&store, objects).await?;
    if std::env::var_os("STORE_BENCH_DELETE").is_some() {
        write_by(&store, objects, WRITERS, delete).await?;
    }
    println!("written");
    for number in objects.. {
        create(store.clone(), number).await?;
    }
    Ok(())
}

async fn create_many(store: &Store, objects: usize) -> Outcome<()> {
    create_by(store, objects, WRITERS).await
}

async fn create_by(store: &Store, objects: usize, writers: usize) -> Outcome<()> {
    write_by(store, objects, writers, create).await
}

/// Writes each object once; every writer has one write under way.
async fn write_by<F>(store: &Store, objects: usize, writers: usize, write: fn(Store, usize) -> F) -> Outcome<()>
where
    F: Future<Output = Outcome<()>> + Send + 'static,
{
    let writers = (0..writers).map(|writer| {
        let (store, step) = (store.clone(), writers);
        tokio::spawn(async move {
            for number in (writer..objects).step_by(step) {
                write(store.clone(), number).await.map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    Ok(())
}

async fn delete(store: Store, number: usize) -> Outcome<()> {
    let key = ObjectKey::namespaced("pods", "default", format!("pod-{number}"));
    store.write(key, |_| Ok::<_, std::convert::Infallible>((Change::Delete, ()))).await?;
    Ok(())
}

async fn touch(store: Store, number: usize) -> Outcome<()> {
    let name = format!("pod-{number}");
    let mut value = pod(&name);
    value.as_object_mut().ok_or("no object")?.insert("touched".to_owned(), json!(true));
    let key = ObjectKey::namespaced("pods", "default", name);
    store.write(key, move |_| Ok::<_, std::convert::Infallible>((Change::Put(value), ()))).await?;
    Ok(())
}

async fn create(store: Store, number: usize) -> Outcome<()> {
    let name = format!("pod-{number}");
    let value = pod(&name);
    let key = ObjectKey::namespaced("pods", "default", name);
    store.write(key, move |_| Ok::<_, std::convert::Infallible>((Change::Put(value), ()))).await?;
    Ok(())
}

/// About 2 KB, as a defaulted Pod of one container has.
fn pod(name: &str) -> Value {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "default", "uid": "6f1d5b5c-7a0e-4c56-9d1b-2f6c1f0a9e11",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web", "tier": "front"},
            "annotations": {"example.org/note": "x".repeat(400)},
        },
        "spec": {
            "containers": [{
                "name": "app", "image": "docker.io/library/busybox:1.36", "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "1000000"], "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "env": [{"name": "A", "value": "x".repeat(200)}, {"name": "B", "value": "y".repeat(200)}],
            }],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default", "securityContext": {}, "schedulerName": "default-scheduler",
        },
        "status": {
            "phase": "Running", "podIP": "10.85.0.2", "hostIP": "192.168.1.1", "startTime": "2026-01-01T00:00:00Z",
            "conditions": conditions,
        },
    })
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times.get((times.len() - 1) * part / 100).copied().unwrap_or_default();
    let ms = |time: Duration| format!("{:.3} ms", time.as_secs_f64() * 1e3);
    println!("{what:<58} {:>10} {:>10} {:>10}", ms(at(0)), ms(at(50)), ms(at(95)));
}
