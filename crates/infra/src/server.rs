//! The loop: daemons' requests in, containers' output and ends out.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;
use rustix::event::epoll::EventFlags;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, acceptfrom_with, socket_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use sys::process::{Child, SingleThreaded};

use crate::container::{ContainerDescriptors, ExecDescriptors, Joined, Pipes, Processes, start_container, start_exec};
use crate::failure::{At, tolerate};
use crate::logs::{Log, Lost};
use crate::poll::{Poll, Source, Watched};
use crate::process::{ChildMessage, tell};
use crate::process_ahead::ProcessAhead;
use crate::protocol::{
    AssignPlan, BootPlan, ContainerPlan, ContainerReport, End, Event, ExecPlan, ExitReport, Failure, PidPlan,
    PreparePlan, Reply, Request, StartTimes, VERSION,
};
use crate::sandbox::{Ahead, Sandbox, assign, boot, own_pidfd, tmpfs_path};
use crate::streams::{Buffers, Streams};
use crate::{kernel_files, records, wire};

/// infra's whole state.
#[derive(Debug)]
pub(crate) struct Server {
    proof: SingleThreaded,
    poll: Poll,
    listener: Watched,
    null: OwnedFd,
    pidfd: OwnedFd,
    clients: BTreeMap<u64, Watched>,
    next_client: u64,
    sandbox: Option<Sandbox>,
    /// PID 1 of shared processes, watched for as long as infra lives.
    pod_init: Option<Watched>,
    ready: bool,
    /// What the daemon gave to be kept open.
    held: Vec<OwnedFd>,
    processes: BTreeMap<String, Process>,
    /// The first process of a container that is still to come.
    ahead: Option<ProcessAhead>,
    buffers: Buffers,
}

/// Who waits for a reply: a client and the id of its request.
type Waiter = (u64, u64);

/// A container's first process, or one started by an exec.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Present until it was reaped.
    watched: Option<Watched>,
    started_at: i64,
    kind: Kind,
    stage: Stage,
}

#[derive(Debug)]
enum Kind {
    Container { streams: Option<Box<Streams>>, devpts: Option<OwnedFd>, terminal: Option<OwnedFd> },
    Exec { terminal: Option<OwnedFd> },
}

#[derive(Debug)]
enum Stage {
    /// Cloned, not yet its program.
    Starting {
        report: Watched,
        /// When it said that only execve(2) is left.
        executing_at: Option<i64>,
        times: StartTimes,
        waiters: Vec<Waiter>,
        /// It has not been released yet.
        held: bool,
        birth: Option<Box<Birth>>,
    },
    Running,
    Exited(ExitReport),
}

/// What a container's streams are made of, once its terminal is known.
#[derive(Debug)]
struct Birth {
    log: Log,
    pipes: Pipes,
    stdin_once: bool,
    tty: bool,
    held: bool,
}

/// Whether the loop goes on.
#[derive(Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    End,
}

impl Server {
    pub(crate) fn new(proof: SingleThreaded, listener: OwnedFd, first: OwnedFd) -> rustix::io::Result<Self> {
        let mut poll = Poll::new()?;
        let listener = poll.add(listener, Source::Listener, EventFlags::IN)?;
        let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let mut server = Self {
            proof,
            poll,
            listener,
            null,
            pidfd: own_pidfd()?,
            clients: BTreeMap::new(),
            next_client: 0,
            sandbox: None,
            pod_init: None,
            ready: false,
            held: Vec::new(),
            processes: BTreeMap::new(),
            ahead: None,
            buffers: Buffers::default(),
        };
        server.add_client(first)?;
        Ok(server)
    }

    /// Serves until the sandbox is to end.
    pub(crate) fn run(mut self) -> rustix::io::Result<()> {
        loop {
            for (token, flags) in self.poll.wait(self.buffers.release_in())? {
                let Some(source) = self.poll.source(token) else { continue };
                if self.dispatch(source, flags) == Flow::End {
                    return Ok(());
                }
            }
            self.buffers.release_if_unused();
        }
    }

    fn dispatch(&mut self, source: Source, flags: EventFlags) -> Flow {
        let gone = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        match source {
            Source::Listener => self.accept(),
            Source::Client(client) => return self.serve_client(client),
            Source::Report(id) => self.read_report(&id),
            Source::Process(id) => self.reap(&id),
            Source::PodInit => {
                // With it the kernel has killed all who share their processes, and nobody can join them any more.
                self.kill_all();
                return Flow::End;
            }
            Source::Output(id, stream) => {
                let lost = self.with_output(&id, |streams, poll, buffers| streams.read_output(poll, buffers, stream));
                self.report_log(&id, lost);
            }
            Source::StdinTo(id) if gone => drop(self.with_streams(&id, Streams::close_stdin)),
            Source::StdinTo(id) => drop(self.with_streams(&id, Streams::write_stdin)),
            Source::StdinFrom(id, number) => {
                self.with_streams(&id, |streams, poll| streams.read_stdin(poll, number));
            }
            Source::AttachTo(id, number, stream) => {
                self.with_streams(&id, |streams, poll| streams.write_attached(poll, number, stream, gone));
                self.drop_idle_streams(&id);
            }
        }
        Flow::Continue
    }

    fn with_streams<T>(&mut self, id: &str, work: impl FnOnce(&mut Streams, &mut Poll) -> T) -> Option<T> {
        match self.processes.get_mut(id)?.kind {
            Kind::Container { streams: Some(ref mut streams), .. } => Some(work(streams, &mut self.poll)),
            Kind::Container { streams: None, .. } | Kind::Exec { .. } => None,
        }
    }

    fn with_output(
        &mut self,
        id: &str,
        work: impl FnOnce(&mut Streams, &mut Poll, &mut Buffers) -> Option<Lost>,
    ) -> Option<Lost> {
        let mut buffers = std::mem::take(&mut self.buffers);
        let lost = self.with_streams(id, |streams, poll| work(streams, poll, &mut buffers)).flatten();
        self.buffers = buffers;
        lost
    }

    // Clients.

    fn accept(&mut self) {
        // A client that is gone before it is accepted, or no descriptor left: it connects again.
        if let Ok((socket, _)) = acceptfrom_with(&self.listener, SocketFlags::CLOEXEC) {
            tolerate(self.add_client(socket));
        }
    }

    fn add_client(&mut self, socket: OwnedFd) -> rustix::io::Result<()> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let number = self.next_client;
        self.next_client += 1;
        let watched = self.poll.add(socket, Source::Client(number), EventFlags::IN)?;
        self.clients.insert(number, watched);
        Ok(())
    }

    fn drop_client(&mut self, client: u64) {
        if let Some(watched) = self.clients.remove(&client) {
            drop(self.poll.remove(watched));
        }
        if self.clients.is_empty() {
            self.keep_exits();
            // The next daemon knows nothing of its control groups.
            self.discard_ahead();
            self.end_held();
        }
    }

    /// Makes durable what no daemon has heard of, or one that is gone may have heard and not stored: what it stored, it had
    /// forgotten here. On a full disk the next daemon still learns it from the state, as long as infra lives.
    fn keep_exits(&self) {
        let Some(sandbox) = &self.sandbox else { return };
        let exits =
            self.processes.iter().filter_map(|(id, process)| process.report(id)).filter(|report| report.exit.is_some());
        for report in exits {
            tolerate(records::write(&sandbox.records, &report));
        }
    }

    /// A client that does not take its answers is dropped; it connects again and asks for the state.
    fn send(&mut self, client: u64, id: u64, reply: &Reply, descriptors: &[BorrowedFd<'_>]) {
        if let Some(socket) = self.clients.get(&client)
            && wire::send(socket, &wire::encode(id, reply), descriptors).is_err()
        {
            self.drop_client(client);
        }
    }

    fn broadcast(&mut self, event: &Event) {
        let message = wire::encode(0, event);
        let failed: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, socket)| wire::send(socket, &message, &[]).is_err())
            .map(|(client, _)| *client)
            .collect();
        for client in failed {
            self.drop_client(client);
        }
    }

    fn serve_client(&mut self, client: u64) -> Flow {
        let Some(socket) = self.clients.get(&client) else { return Flow::Continue };
        let frame = match wire::receive(socket) {
            Ok(Some(frame)) => frame,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Flow::Continue,
            Ok(None) | Err(_) => {
                self.drop_client(client);
                // A sandbox that was never booted has nobody to serve, and its daemon is gone.
                return if self.sandbox.is_none() && self.clients.is_empty() { Flow::End } else { Flow::Continue };
            }
        };
        let id = frame.id;
        let Some(request) = frame.body::<Request>() else {
            self.send(client, id, &Reply::Unknown, &[]);
            return Flow::Continue;
        };
        if matches!(request, Request::Shutdown) {
            self.kill_all();
            return Flow::End;
        }
        if let Err(failure) = self.serve(client, id, request, frame.descriptors) {
            self.send(client, id, &Reply::Failed(failure), &[]);
        }
        Flow::Continue
    }

    fn serve(&mut self, client: u64, id: u64, request: Request, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        match request {
            Request::Hello { .. } => self.send_state(client, id),
            Request::Boot(plan) => {
                self.boot(&plan, fds)?;
                self.send_state(client, id);
            }
            Request::Start(plan) => self.start((client, id), &plan, fds)?,
            Request::Exec(plan) => self.exec((client, id), &plan, fds)?,
            Request::Signal { id: process, signal } => {
                self.signal(&process, signal)?;
                self.send(client, id, &Reply::Done, &[]);
            }
            Request::Attach { id: container, stdin, stdout, stderr } => {
                self.attach((client, id), &container, [stdin, stdout, stderr], fds)?;
            }
            Request::Forget { id: container } => {
                self.forget(&container)?;
                self.send(client, id, &Reply::Done, &[]);
            }
            Request::OpenTmpfs { volume } => {
                let path = tmpfs_path(&volume);
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = openat(CWD, &path, flags, Mode::empty()).at_path("open the memory volume", &volume)?;
                self.send(client, id, &Reply::Done, &[directory.as_fd()]);
            }
            Request::OpenSocket { ipv6 } => {
                self.sandbox()?;
                let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = socket_with(family, SocketType::STREAM, flags, None).at("open a socket")?;
                self.send(client, id, &Reply::Done, &[socket.as_fd()]);
            }
            Request::Assign(plan) => {
                // Which nobody has to wait for where it goes unused.
                let unused = self.assign(&plan)?;
                self.send(client, id, &Reply::Done, &[]);
                drop(unused);
                if !plan.prepared {
                    self.discard_ahead();
                }
            }
            Request::Prepare(plan) => {
                self.prepare(&plan, fds)?;
                self.send(client, id, &Reply::Done, &[]);
            }
            Request::ReopenLog { id: container } => {
                self.reopen_log(&container)?;
                self.send(client, id, &Reply::Done, &[]);
            }
            Request::Discard => {
                self.discard_ahead();
                self.send(client, id, &Reply::Done, &[]);
            }
            Request::Release { id: container } => {
                if let Some(Process { stage: Stage::Starting { report, held, .. }, .. }) =
                    self.processes.get_mut(&container)
                    && std::mem::take(held)
                {
                    tolerate(tell(&*report, &ChildMessage::GoOn));
                }
            }
            Request::MarkReady => {
                self.sandbox()?;
                self.ready = true;
                self.send(client, id, &Reply::Done, &[]);
            }
            Request::Hold => {
                self.held.extend(fds);
                self.send(client, id, &Reply::Done, &[]);
            }
            Request::Shutdown => {}
        }
        Ok(())
    }

    fn send_state(&mut self, client: u64, id: u64) {
        let containers = self.processes.iter().filter_map(|(id, process)| process.report(id)).collect();
        let booted = self.sandbox.is_some();
        let spare = self.sandbox.as_ref().is_some_and(|sandbox| sandbox.spare);
        let reply = Reply::State { version: VERSION, booted, containers, ready: self.ready, spare };
        let mut descriptors = vec![self.pidfd.as_fd()];
        if let Some(sandbox) = &self.sandbox {
            descriptors.extend([sandbox.network_namespace.as_fd(), sandbox.route_socket.as_fd()]);
            descriptors.extend(sandbox.user_namespace.as_ref().map(|users| users.fd.as_fd()));
        }
        let Some(socket) = self.clients.get(&client) else { return };
        if wire::send(socket, &wire::encode(id, &reply), &descriptors).is_err() {
            self.drop_client(client);
        }
    }

    fn boot(&mut self, plan: &BootPlan, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        if self.sandbox.is_none() {
            let records = fds.into_iter().next().ok_or(Errno::BADF).at("receive a descriptor")?;
            let sandbox = boot(self.proof, plan, records, &self.pidfd)?;
            if let Some(pod_init) = &sandbox.pod_init {
                let pidfd = rustix::io::fcntl_dupfd_cloexec(&pod_init.pidfd, 3).at("watch the pod's PID 1")?;
                self.pod_init =
                    Some(self.poll.add(pidfd, Source::PodInit, EventFlags::IN).at("watch the pod's PID 1")?);
            }
            self.sandbox = Some(sandbox);
        }
        Ok(())
    }

    /// Gives the memory that was made ahead where the Pod needs none.
    fn assign(&mut self, plan: &AssignPlan) -> Result<Option<OwnedFd>, Failure> {
        match &mut self.sandbox {
            Some(sandbox) if sandbox.spare => {
                // Half of it is nobody's use: whoever finds it so removes it.
                self.ready = false;
                let mut memory = sandbox.memory_ahead.take();
                assign(plan, &mut memory)?;
                sandbox.spare = false;
                self.ready = !plan.more;
                if let Some(title) = sandbox.title {
                    title.show(&plan.name);
                }
                set_process_name(plan.name.as_ref());
                Ok(memory)
            }
            Some(_) | None => Err(Errno::ALREADY).at("assign a sandbox that is not a spare one"),
        }
    }

    fn prepare(&mut self, plan: &PreparePlan, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        self.discard_ahead();
        let sandbox = self.sandbox()?;
        if !sandbox.spare {
            return Err(Errno::ALREADY).at("make a process ahead in a sandbox that is a pod's");
        }
        self.ahead = Some(ProcessAhead::start(self.proof, plan, fds, sandbox, &self.null)?);
        Ok(())
    }

    /// The next daemon may not know of them either.
    fn end_held(&mut self) {
        let is_held = |process: &Process| matches!(process.stage, Stage::Starting { held: true, .. });
        let held: Vec<String> =
            self.processes.iter().filter(|(_, process)| is_held(process)).map(|(id, _)| id.clone()).collect();
        for id in held {
            self.fail_start(&id, &killed_while_starting());
        }
    }

    fn discard_ahead(&mut self) {
        if let Some(ahead) = self.ahead.take() {
            kill_and_reap(&ahead.child);
        }
    }

    fn sandbox(&self) -> Result<&Sandbox, Failure> {
        self.sandbox.as_ref().ok_or(Errno::NOTCONN).at("use a sandbox that is not booted")
    }

    // Processes.

    fn start(&mut self, waiter: Waiter, plan: &ContainerPlan, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        match self.processes.get_mut(&plan.id).map(|process| (&mut process.stage, process.started_at)) {
            Some((Stage::Starting { waiters, .. }, _)) => {
                waiters.push(waiter);
                return Ok(());
            }
            Some((Stage::Running | Stage::Exited(_), started_at)) => {
                self.send(waiter.0, waiter.1, &Reply::Started { started_at, times: None }, &[]);
                return Ok(());
            }
            None => {}
        }
        let received_at = now();
        let mut descriptors = ContainerDescriptors::take(plan, fds)?;
        if self.sandbox()?.spare {
            return Err(Errno::NOTCONN).at("start a container in a sandbox that is nobody's yet");
        }
        let ahead = self.ahead.take_if(|ahead| ahead.serves(plan));
        let sandbox = self.sandbox()?;
        let processes = match &plan.pid {
            None => Processes::Own,
            Some(PidPlan::Host) => Processes::Host,
            Some(PidPlan::Pod) => match &sandbox.pod_init {
                Some(pod_init) => Processes::Of(&pod_init.pidfd),
                None => return Err(Errno::SRCH).at("share processes that the pod does not share"),
            },
            Some(PidPlan::Target { container }) => Processes::Of(&self.running(container)?.0.pidfd),
        };
        let handed_over = ahead.map(|ahead| ahead.hand_over(plan, &mut descriptors)).transpose()?.flatten();
        let born = match handed_over {
            Some(born) => born,
            None => start_container(self.proof, plan, &mut descriptors, sandbox, processes, &self.null)?,
        };
        let times = cloned_now(received_at);
        if let Some(sandbox) = &mut self.sandbox
            && sandbox.ahead == Ahead::Assembled
        {
            sandbox.ahead = Ahead::Taken;
        }
        // While the new process is at work, which then waits for the word that it may go on.
        let log = Log::open(descriptors.logs, &plan.log_file, plan.log_max_size, plan.log_max_files);
        let log = match log {
            Ok(log) => log,
            Err(failure) => {
                kill_and_reap(&born.child);
                self.let_go_of_what_was_taken();
                return Err(failure);
            }
        };
        if !plan.held {
            // One that is gone already has said why.
            tolerate(tell(&born.channel, &ChildMessage::GoOn));
        }
        let (stdin_once, tty) = (plan.stdin_once, plan.process.tty);
        let birth = Birth { log, pipes: born.pipes, stdin_once, tty, held: plan.held };
        let kind = Kind::Container { streams: None, devpts: None, terminal: None };
        self.watch(&plan.id, (born.child, born.channel), waiter, kind, Some(Box::new(birth)), times)
    }

    fn exec(&mut self, waiter: Waiter, plan: &ExecPlan, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let received_at = now();
        let descriptors = ExecDescriptors::take(plan, fds)?;
        let (child, devpts) = self.running(&plan.container)?;
        let sandbox = self.sandbox()?;
        let joined = Joined {
            pidfd: &child.pidfd,
            devpts,
            own_pid_namespace: &sandbox.pid_namespace,
            user_namespace: sandbox.user_namespace.as_ref(),
        };
        let (born, terminal) = start_exec(self.proof, plan, &descriptors, joined, &self.null)?;
        let times = cloned_now(received_at);
        self.watch(&plan.id, (born.child, born.channel), waiter, Kind::Exec { terminal }, None, times)
    }

    /// A running container's first process and devpts.
    fn running(&self, container: &str) -> Result<(&Child, &OwnedFd), Failure> {
        let found = self.processes.get(container).filter(|process| matches!(process.stage, Stage::Running));
        match found {
            Some(Process { child, kind: Kind::Container { devpts: Some(devpts), .. }, .. }) => Ok((child, devpts)),
            _ => Err(Errno::SRCH).at("enter a container that does not run"),
        }
    }

    fn watch(
        &mut self,
        id: &str,
        (child, channel): (Child, OwnedFd),
        waiter: Waiter,
        kind: Kind,
        birth: Option<Box<Birth>>,
        times: StartTimes,
    ) -> Result<(), Failure> {
        let pidfd = rustix::io::fcntl_dupfd_cloexec(&child.pidfd, 3).at("watch a process")?;
        let watched = self.poll.add(pidfd, Source::Process(id.to_owned()), EventFlags::IN).at("watch a process")?;
        rustix::io::ioctl_fionbio(&channel, true).at("watch a process")?;
        let report = self.poll.add(channel, Source::Report(id.to_owned()), EventFlags::IN).at("watch a process")?;
        let held = birth.as_ref().is_some_and(|birth| birth.held);
        let stage = Stage::Starting { report, executing_at: None, times, waiters: vec![waiter], held, birth };
        let process = Process { child, watched: Some(watched), started_at: 0, kind, stage };
        self.processes.insert(id.to_owned(), process);
        Ok(())
    }

    /// Hears from a process that is not yet its program.
    fn read_report(&mut self, id: &str) {
        loop {
            let Some(Process { stage: Stage::Starting { report, .. }, .. }) = self.processes.get(id) else { return };
            let frame = match wire::receive(report) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Ok(Some(frame)) => frame,
                Ok(None) | Err(_) => return self.finish_start(id),
            };
            match frame.body::<ChildMessage>() {
                Some(ChildMessage::Executing { assembled_at }) => {
                    if let Some(Process { stage: Stage::Starting { executing_at, times, .. }, .. }) =
                        self.processes.get_mut(id)
                    {
                        *executing_at = Some(now());
                        times.assembled_at = assembled_at.unwrap_or(times.assembled_at);
                    }
                    self.adopt_streams(id, frame.descriptors);
                }
                Some(ChildMessage::Failed(failure)) => return self.fail_start(id, &failure),
                Some(
                    ChildMessage::GoOn
                    | ChildMessage::MadeNamespaces
                    | ChildMessage::Cloned { .. }
                    | ChildMessage::Become(_),
                )
                | None => {}
            }
        }
    }

    fn adopt_streams(&mut self, id: &str, descriptors: Vec<OwnedFd>) {
        let Some(process) = self.processes.get_mut(id) else { return };
        let (Kind::Container { streams, devpts, terminal }, Stage::Starting { birth, .. }) =
            (&mut process.kind, &mut process.stage)
        else {
            return;
        };
        let mut descriptors = descriptors.into_iter();
        *devpts = descriptors.next();
        let master = descriptors.next();
        *terminal = master.as_ref().and_then(|master| rustix::io::fcntl_dupfd_cloexec(master, 3).ok());
        let Some(birth) = birth.take() else { return };
        let pipes = if birth.tty { Pipes::default() } else { birth.pipes };
        // Out of descriptors or memory: the container runs without its streams being read, until it blocks.
        *streams = Streams::new(&mut self.poll, id, birth.stdin_once, birth.log, pipes, master).ok().map(Box::new);
    }

    /// The report channel closed: the program is executed, or the process was killed before.
    fn finish_start(&mut self, id: &str) {
        let Some(process) = self.processes.get_mut(id) else { return };
        let Stage::Starting { executing_at, times, .. } = &process.stage else { return };
        let Some(executing_at) = *executing_at else {
            return self.fail_start(id, &killed_while_starting());
        };
        let times = Some(StartTimes { executing_at, ..*times });
        let started_at = now();
        process.started_at = started_at;
        let terminal = match &mut process.kind {
            Kind::Exec { terminal } => terminal.take(),
            Kind::Container { .. } => None,
        };
        if let Stage::Starting { report, waiters, .. } = std::mem::replace(&mut process.stage, Stage::Running) {
            drop(self.poll.remove(report));
            let descriptors: Vec<BorrowedFd<'_>> = terminal.iter().map(AsFd::as_fd).collect();
            for (client, request) in waiters {
                self.send(client, request, &Reply::Started { started_at, times }, &descriptors);
            }
        }
        self.let_go_of_what_was_taken();
    }

    /// When nobody waits any more: taking mounts down waits for the whole kernel (RCU). A process that is still there serves nobody:
    /// another container was the first.
    fn let_go_of_what_was_taken(&mut self) {
        self.discard_ahead();
        if let Some(sandbox) = &mut self.sandbox
            && sandbox.ahead == Ahead::Taken
        {
            kernel_files::let_go();
            sandbox.ahead = Ahead::Nothing;
        }
    }

    fn fail_start(&mut self, id: &str, failure: &Failure) {
        let Some(mut process) = self.processes.remove(id) else { return };
        // It is about to exit, or waits in a mount; either way it must be gone before anybody hears of the failure.
        kill_and_reap(&process.child);
        if let Some(watched) = process.watched.take() {
            drop(self.poll.remove(watched));
        }
        if let Kind::Container { streams: Some(streams), .. } = &mut process.kind {
            // The daemon hears of the failure itself; lost lines do not matter beside it.
            let _lost = streams.finish(&mut self.poll, &mut self.buffers);
        }
        if let Stage::Starting { report, waiters, .. } = process.stage {
            drop(self.poll.remove(report));
            for (client, request) in waiters {
                self.send(client, request, &Reply::Failed(failure.clone()), &[]);
            }
        }
        self.let_go_of_what_was_taken();
    }

    /// A process ended: its last output is written, its exit is recorded, then the daemon hears of it.
    fn reap(&mut self, id: &str) {
        self.read_report(id);
        let Some(process) = self.processes.get_mut(id) else { return };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let Ok(Some(status)) = waitid(WaitId::PidFd(process.child.pidfd.as_fd()), options) else { return };
        let end = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => End::Code(code),
            (None, Some(signal)) => End::Signal(signal),
            (None, None) => End::Code(255),
        };
        if let Some(watched) = process.watched.take() {
            drop(self.poll.remove(watched));
        }
        let exit = ExitReport { finished_at: now(), end };
        process.stage = Stage::Exited(exit);
        if matches!(process.kind, Kind::Exec { .. }) {
            self.processes.remove(id);
            return self.broadcast(&Event::ExecExited { id: id.to_owned(), end });
        }
        let lost = self.with_output(id, Streams::finish);
        self.report_log(id, lost);
        self.drop_idle_streams(id);
        let Some(process) = self.processes.get_mut(id) else { return };
        if let Kind::Container { devpts, terminal, .. } = &mut process.kind {
            (*devpts, *terminal) = (None, None);
        }
        let Some(report) = process.report(id) else { return };
        self.broadcast(&Event::Exited(report));
        if self.clients.is_empty() {
            self.keep_exits();
        }
    }

    fn drop_idle_streams(&mut self, id: &str) {
        if let Some(Process { stage: Stage::Exited(_), kind: Kind::Container { streams, .. }, .. }) =
            self.processes.get_mut(id)
            && streams.as_ref().is_some_and(|streams| !streams.delivering())
        {
            *streams = None;
        }
    }

    fn report_log(&mut self, id: &str, lost: Option<Lost>) {
        if self.with_streams(id, |streams, _| streams.take_rotated()).unwrap_or(false) {
            self.broadcast(&Event::LogRotated { id: id.to_owned() });
        }
        if let Some(Lost { bytes, errno }) = lost {
            self.broadcast(&Event::LogLost { id: id.to_owned(), bytes, errno });
        }
    }

    fn signal(&self, id: &str, signal: i32) -> Result<(), Failure> {
        let process = self.processes.get(id).ok_or(Errno::SRCH).at("signal")?;
        if matches!(process.stage, Stage::Exited(_)) {
            return Ok(());
        }
        match sys::signal::pidfd_send(&process.child.pidfd, signal) {
            Err(error) if error.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => Err(error).at("signal"),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    fn attach(&mut self, waiter: Waiter, id: &str, wanted: [bool; 3], fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let mut fds = fds.into_iter();
        let [stdin, stdout, stderr] = wanted.map(|wanted| if wanted { fds.next() } else { None });
        let running = self.processes.get(id).is_some_and(|process| matches!(process.stage, Stage::Running));
        let pipes = Pipes { stdin, stdout, stderr };
        match self.with_streams(id, |streams, poll| streams.attach(poll, pipes)) {
            Some(attached) if running => attached.at("attach")?,
            _ => return Err(Errno::SRCH).at("attach to a container that does not run"),
        }
        let terminal = match self.processes.get(id) {
            Some(Process { kind: Kind::Container { terminal: Some(terminal), .. }, .. }) => {
                rustix::io::fcntl_dupfd_cloexec(terminal, 3).ok()
            }
            _ => None,
        };
        let descriptors: Vec<BorrowedFd<'_>> = terminal.iter().map(AsFd::as_fd).collect();
        self.send(waiter.0, waiter.1, &Reply::Done, &descriptors);
        Ok(())
    }

    fn reopen_log(&mut self, id: &str) -> Result<(), Failure> {
        match self.with_streams(id, |streams, _poll| streams.reopen_log()) {
            Some(reopened) => reopened,
            None => Err(Errno::SRCH).at("open the log of a container that does not run"),
        }
    }

    fn forget(&mut self, id: &str) -> Result<(), Failure> {
        match self.processes.get(id).map(|process| &process.stage) {
            Some(Stage::Starting { .. } | Stage::Running) => return Err(Errno::BUSY).at("forget a running container"),
            Some(Stage::Exited(_)) => drop(self.processes.remove(id)),
            None => {}
        }
        records::remove(&self.sandbox()?.records, id).at("remove the exit record")
    }

    /// The end of the sandbox: children die with infra anyway (`PR_SET_PDEATHSIG`), this is the sure way.
    fn kill_all(&self) {
        for process in self.processes.values() {
            if !matches!(process.stage, Stage::Exited(_)) {
                tolerate(pidfd_send_signal(&process.child.pidfd, Signal::KILL));
            }
        }
        for process in self.processes.values() {
            if !matches!(process.stage, Stage::Exited(_)) {
                tolerate(waitid(WaitId::PidFd(process.child.pidfd.as_fd()), WaitIdOptions::EXITED));
            }
        }
        if let Some(pod_init) = self.sandbox.as_ref().and_then(|sandbox| sandbox.pod_init.as_ref()) {
            kill_and_reap(pod_init);
        }
        if let Some(ahead) = &self.ahead {
            kill_and_reap(&ahead.child);
        }
    }
}

impl Process {
    /// What the daemon is told of a container; nothing of one that is not its program yet, nor of an exec.
    fn report(&self, id: &str) -> Option<ContainerReport> {
        let exit = match (&self.kind, &self.stage) {
            (Kind::Exec { .. }, _) | (_, Stage::Starting { .. }) => return None,
            (Kind::Container { .. }, Stage::Running) => None,
            (Kind::Container { .. }, Stage::Exited(exit)) => Some(exit.clone()),
        };
        Some(ContainerReport { id: id.to_owned(), started_at: self.started_at, exit })
    }
}

fn killed_while_starting() -> Failure {
    Failure { step: "start: killed while starting".into(), path: None, errno: Errno::INTR.raw_os_error() }
}

/// Nothing comes of a child that is gone already.
pub(crate) fn kill_and_reap(child: &Child) {
    tolerate(pidfd_send_signal(&child.pidfd, Signal::KILL));
    tolerate(waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED));
}

/// As far as it is known when the first process is there.
fn cloned_now(received_at: i64) -> StartTimes {
    let cloned_at = now();
    StartTimes { received_at, cloned_at, assembled_at: cloned_at, executing_at: cloned_at }
}

/// Wall time in nanoseconds since 1970: until the year 2262.
pub(crate) fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// The name that ps(1) shows.
pub(crate) fn set_process_name(name: &OsStr) {
    if let Ok(name) = std::ffi::CString::new(name.as_encoded_bytes()) {
        // A name is for people only.
        tolerate(rustix::thread::set_name(&name));
    }
}
