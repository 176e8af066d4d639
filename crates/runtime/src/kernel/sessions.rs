//! Sessions: exec and attach as streams of the daemon, over descriptors that infra hands to the process.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use infra::protocol::{End, ExecPlan, Reply, Request};
use infra::versions;
use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};
use spec::{ContainerId, ContainerName, SandboxId};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::cgroups::CgroupPath;
use super::connection::{Connection, RequestError};
use super::container::too_old;
use super::state::RunningContainer;
use super::user_ids::IdBlock;
use super::{Kernel, PROMPT, borrow_all, watch_descriptor};
use crate::error::RuntimeError;
use crate::status::ContainerState;
use crate::verbs::{ExecOutput, ExecRequest, Session, SessionEnd, TerminalSize};

/// How long the kernel may take to start a process in a container that runs.
const EXEC_LIMIT: Duration = Duration::from_secs(30);
/// How long a probe's output is read on after its process has ended: a grandchild may hold the pipe.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
/// How long a process that ran into its time-out may take to die.
const KILL_LIMIT: Duration = Duration::from_secs(1);

/// Both sides of the pipes of a session.
#[derive(Default)]
struct Pipes {
    stdin: Option<(pipe::Sender, OwnedFd)>,
    stdout: Option<(pipe::Receiver, OwnedFd)>,
    stderr: Option<(pipe::Receiver, OwnedFd)>,
}

impl Pipes {
    /// The far ends belong to the container's user, so that it can open `/dev/stdout`.
    fn open(stdin: bool, stdout: bool, stderr: bool, running: &RunningContainer) -> io::Result<Self> {
        let first = running.sandbox.ids.map_or(0, IdBlock::first_id);
        let user = &running.record.user;
        let (uid, gid) = (Uid::from_raw(user.uid.saturating_add(first)), Gid::from_raw(user.gid.saturating_add(first)));
        let owner = |fd: &OwnedFd| fchown(fd, Some(uid), Some(gid));
        let mut pipes = Self::default();
        if stdin {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            owner(&theirs)?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            pipes.stdin = Some((pipe::Sender::from_owned_fd(ours)?, theirs));
        }
        for (wanted, slot) in [(stdout, &mut pipes.stdout), (stderr, &mut pipes.stderr)] {
            if wanted {
                let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
                owner(&theirs)?;
                rustix::io::ioctl_fionbio(&ours, true)?;
                *slot = Some((pipe::Receiver::from_owned_fd(ours)?, theirs));
            }
        }
        Ok(pipes)
    }

    fn far_ends(&self) -> Vec<BorrowedFd<'_>> {
        let stdin = self.stdin.iter().map(|(_, fd)| fd.as_fd());
        stdin.chain(self.stdout.iter().chain(&self.stderr).map(|(_, fd)| fd.as_fd())).collect()
    }

    fn into_session(
        self,
        terminal: Option<OwnedFd>,
        end: impl Future<Output = SessionEnd> + Send + 'static,
    ) -> Session {
        Session {
            stdin: self.stdin.map(|(ours, _)| Box::pin(ours) as Pin<Box<dyn AsyncWrite + Send>>),
            stdout: self.stdout.map(|(ours, _)| Box::pin(ours) as Pin<Box<dyn AsyncRead + Send>>),
            stderr: self.stderr.map(|(ours, _)| Box::pin(ours) as Pin<Box<dyn AsyncRead + Send>>),
            resize: terminal.map(resizer),
            end: Box::pin(end),
        }
    }
}

fn resizer(terminal: impl AsFd + Send + Sync + 'static) -> Box<dyn Fn(TerminalSize) -> io::Result<()> + Send + Sync> {
    Box::new(move |size| {
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&terminal, size)?)
    })
}

/// A process that was started in a container.
struct Started {
    container: ContainerName,
    pipes: Pipes,
    /// Its terminal's master side, if it has one.
    terminal: Option<OwnedFd>,
    guard: ExecGuard,
}

impl Kernel {
    pub(super) async fn exec(self: Arc<Self>, id: &ContainerId, request: ExecRequest) -> Result<Session, RuntimeError> {
        let streams = [request.stdin, request.stdout];
        let Started { container, pipes, terminal, guard } = self.start_exec(id, request).await?;
        match terminal {
            Some(master) => terminal_session(master, streams, guard).map_err(|source| RuntimeError::Exec {
                name: container,
                step: "use its terminal".to_owned(),
                source,
            }),
            None => Ok(pipes.into_session(None, guard.into_end())),
        }
    }

    async fn start_exec(self: Arc<Self>, id: &ContainerId, request: ExecRequest) -> Result<Started, RuntimeError> {
        let running = self.state.running(id)?;
        let record = &running.record;
        let exec_id = exec_id();
        let error = |step: &str, source: io::Error| RuntimeError::Exec {
            name: record.config.name.clone(),
            step: step.to_owned(),
            source,
        };
        let pipes = if request.tty {
            Pipes::default()
        } else {
            Pipes::open(request.stdin, request.stdout, request.stderr, &running)
                .map_err(|e| error("make its pipes", e))?
        };
        let cgroup = CgroupPath::of(&running.sandbox.config).container(id);
        let placement =
            self.cgroups.placement(&cgroup).map_err(|e| error("open its control group", io::Error::other(e)))?;
        let plan = ExecPlan {
            id: exec_id.clone(),
            container: id.as_str().to_owned(),
            process: self.process_plan(record, request.command, request.tty)?,
            cgroup_v2: placement.v2.is_some(),
            cgroup_v1: u32::try_from(placement.v1_tasks.len()).unwrap_or(u32::MAX),
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            oom_score_adj: record.config.resources.oom_score_adj,
        };
        if let Some(need) = versions::exec_lacks(&plan, self.state.infra_version(&record.sandbox)) {
            return Err(error("start the process", io::Error::other(too_old(need))));
        }
        let mut descriptors: Vec<BorrowedFd<'_>> = placement.v2.iter().map(AsFd::as_fd).collect();
        descriptors.extend(borrow_all(&placement.v1_tasks));
        descriptors.extend(pipes.far_ends());
        let guard = self.expect_exec(&exec_id, &record.sandbox, Arc::clone(&running.connection));
        let answer = running.connection.request(&Request::Exec(Box::new(plan)), &descriptors, EXEC_LIMIT).await;
        drop(descriptors);
        let master = match answer {
            Ok((Reply::Started { started_at, times }, descriptors)) => {
                if let Some(times) = times {
                    steps::note("start its program", times.received_at, started_at);
                }
                descriptors.into_iter().next()
            }
            Ok(_) => None,
            Err(RequestError::Failed(failure, source)) => {
                let path = failure.path.map(|path| format!(" {path:?}")).unwrap_or_default();
                return Err(error(&format!("{}{path}", failure.step), source));
            }
            Err(RequestError::Gone(_)) => {
                return Err(RuntimeError::SandboxNotReady { pod: running.sandbox.config.pod.clone() });
            }
            Err(other) => return Err(error("start the process", io::Error::other(other))),
        };
        let container = running.record.config.name;
        Ok(Started { container, pipes, terminal: master.filter(|_| request.tty), guard })
    }

    /// Registers an exec before infra hears of it: its end may be told before the reply.
    fn expect_exec(self: &Arc<Self>, exec: &str, sandbox: &SandboxId, connection: Arc<Connection>) -> ExecGuard {
        let (sender, receiver) = oneshot::channel();
        self.state.lock().execs.insert(exec.to_owned(), (sandbox.clone(), sender));
        ExecGuard { kernel: Arc::clone(self), exec: exec.to_owned(), connection, receiver: Some(receiver) }
    }

    pub(super) async fn exec_sync(
        self: Arc<Self>,
        id: &ContainerId,
        command: Vec<String>,
        timeout: Duration,
        output_limit: usize,
    ) -> Result<ExecOutput, RuntimeError> {
        let request = ExecRequest { command, stdin: false, stdout: true, stderr: true, tty: false };
        let Started { pipes, mut guard, .. } = self.start_exec(id, request).await?;
        let [stdout, stderr] = [pipes.stdout, pipes.stderr].map(|pipe| pipe.map(|(ours, _)| ours));
        let (mut printed, mut complained) = (Vec::new(), Vec::new());
        let ended = {
            let reading = async {
                tokio::join!(
                    read_bounded(stdout, &mut printed, output_limit),
                    read_bounded(stderr, &mut complained, output_limit),
                )
            };
            tokio::pin!(reading);
            let mut read = false;
            let ended = {
                let end = guard.end();
                tokio::pin!(end);
                tokio::time::timeout(timeout, async {
                    loop {
                        tokio::select! {
                            end = &mut end => break end,
                            _ = &mut reading, if !read => read = true,
                        }
                    }
                })
                .await
            };
            if ended.is_err() {
                guard.kill().await;
            } else if !read {
                // What is in the pipe belongs to the output; who still holds it open is not waited for.
                drop(tokio::time::timeout(DRAIN_LIMIT, &mut reading).await);
            }
            ended
        };
        let exit_code = match ended {
            Ok(SessionEnd::Exited(code)) => Some(code),
            Ok(SessionEnd::Lost) => Some(137),
            Err(_elapsed) => None,
        };
        Ok(ExecOutput { exit_code, stdout: printed, stderr: complained })
    }

    pub(super) async fn attach(
        &self,
        id: &ContainerId,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    ) -> Result<Session, RuntimeError> {
        let running = self.state.running(id)?;
        let record = &running.record;
        let error = |step: &str, source: io::Error| RuntimeError::Exec {
            name: record.config.name.clone(),
            step: step.to_owned(),
            source,
        };
        let stderr = stderr && !record.config.tty;
        let stdin = stdin && record.config.stdin;
        let pipes = Pipes::open(stdin, stdout, stderr, &running).map_err(|e| error("make pipes", e))?;
        let request = Request::Attach { id: id.as_str().to_owned(), stdin, stdout, stderr };
        let answer = running.connection.request(&request, &pipes.far_ends(), PROMPT).await;
        let (_, descriptors) = answer.map_err(|e| error("attach", io::Error::other(e)))?;
        let mut state = self.state.watch_container(id).ok_or_else(|| RuntimeError::NoSuchContainer(id.clone()))?;
        let end = async move {
            match state.wait_for(|state| matches!(state, ContainerState::Exited(_))).await.as_deref() {
                Ok(ContainerState::Exited(exit)) => SessionEnd::Exited(exit.exit_code),
                Ok(ContainerState::Created | ContainerState::Running { .. }) | Err(_) => SessionEnd::Lost,
            }
        };
        Ok(pipes.into_session(descriptors.into_iter().next(), end))
    }
}

/// `wanted`: stdin, stdout.
fn terminal_session(master: OwnedFd, wanted: [bool; 2], guard: ExecGuard) -> io::Result<Session> {
    rustix::io::ioctl_fionbio(&master, true)?;
    let terminal = Arc::new(watch_descriptor(master, Interest::READABLE | Interest::WRITABLE)?);
    let [stdin, stdout] = wanted;
    let stream = || TerminalStream(Arc::clone(&terminal));
    Ok(Session {
        stdin: stdin.then(|| Box::pin(stream()) as Pin<Box<dyn AsyncWrite + Send>>),
        stdout: stdout.then(|| Box::pin(stream()) as Pin<Box<dyn AsyncRead + Send>>),
        stderr: None,
        resize: Some(resizer(TerminalStream(Arc::clone(&terminal)))),
        end: Box::pin(guard.into_end()),
    })
}

/// An exec that infra runs: dropped before its end, the process is killed, so that a vanished client leaves none behind.
struct ExecGuard {
    kernel: Arc<Kernel>,
    exec: String,
    connection: Arc<Connection>,
    receiver: Option<oneshot::Receiver<End>>,
}

impl ExecGuard {
    async fn into_end(mut self) -> SessionEnd {
        self.end().await
    }

    /// Kills the process and waits until it is gone; one that a signal does not end is left to die.
    async fn kill(&mut self) {
        let request = Request::Signal { id: self.exec.clone(), signal: 9 };
        // It may end by itself meanwhile, or its sandbox may.
        drop(self.connection.request(&request, &[], PROMPT).await);
        drop(tokio::time::timeout(KILL_LIMIT, self.end()).await);
    }

    async fn end(&mut self) -> SessionEnd {
        let Some(receiver) = &mut self.receiver else { return SessionEnd::Lost };
        let end = receiver.await;
        self.receiver = None;
        match end {
            Ok(End::Code(code)) => SessionEnd::Exited(code),
            Ok(End::Signal(signal)) => SessionEnd::Exited(128 + signal),
            Err(_closed) => SessionEnd::Lost,
        }
    }
}

impl Drop for ExecGuard {
    fn drop(&mut self) {
        let waiting = self.kernel.state.lock().execs.remove(&self.exec).is_some();
        if waiting && self.receiver.is_some() {
            let request = Request::Signal { id: std::mem::take(&mut self.exec), signal: 9 };
            let connection = Arc::clone(&self.connection);
            // It may end by itself meanwhile, or its sandbox may.
            tokio::spawn(async move { drop(connection.request(&request, &[], PROMPT).await) });
        }
    }
}

fn exec_id() -> String {
    let mut bytes = [0_u8; 8];
    // The kernel's generator is seeded long before a daemon starts; the number is no secret.
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    debug_assert_eq!(filled, bytes.len());
    bytes.iter().fold(String::from("exec-"), |mut text, byte| {
        // Writing to a String cannot fail.
        let _written = write!(text, "{byte:02x}").is_ok();
        text
    })
}

/// Keeps the first bytes and reads on to the end, so that the process is not stopped by a full pipe.
async fn read_bounded(stream: Option<pipe::Receiver>, kept: &mut Vec<u8>, limit: usize) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0_u8; 8192];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        let room = limit.saturating_sub(kept.len());
        kept.extend_from_slice(chunk.get(..count.min(room)).unwrap_or_default());
    }
}

/// A terminal's master side.
struct TerminalStream(Arc<AsyncFd<OwnedFd>>);

impl AsFd for TerminalStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

impl AsyncRead for TerminalStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let result = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), buffer.initialize_unfilled())?));
            match result {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The last program that had the other side open has closed it: the end, not an error.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for TerminalStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            if let Ok(result) = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal has no half-close: its program goes on reading until the user ends it.
    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
