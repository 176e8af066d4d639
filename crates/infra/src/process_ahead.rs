//! The first process of a container that is still to come: in its control groups and namespaces, with its kernel file systems
//! assembled, it waits for the container's plan.
//!
//! To clone it, and all that it does until then, is the half of a start. It serves a container that is as most are. Where it does
//! not, where another one was the first, and where no daemon is there any more, it is killed.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal};
use sys::process::{Child, CloneOptions, SingleThreaded, clone_process};

use crate::apparmor::Confinement;
use crate::container::{
    Born, ContainerDescriptors, Owner, Pipes, Stdio, Streams, become_container, begin_session, report_channel,
    take_cgroups,
};
use crate::failure::At;
use crate::kernel_files::{KernelFiles, Surroundings, View};
use crate::mounts::MountPoint;
use crate::process::{ChildMessage, join_cgroups, set_oom_score, tell};
use crate::program::Program;
use crate::protocol::{ContainerPlan, Failure, MountPlan, MountSource, PreparePlan};
use crate::rootfs::{Rootfs, part_of_memory};
use crate::sandbox::{Ahead, Sandbox, tmpfs_path};
use crate::server::kill_and_reap;
use crate::wire::{self, MAX_DESCRIPTORS};

/// A process that waits for the plan of its container.
#[derive(Debug)]
pub(crate) struct ProcessAhead {
    /// The container's.
    id: String,
    pub(crate) child: Child,
    channel: OwnedFd,
}

/// The descriptors that come with a [`PreparePlan`].
#[derive(Debug)]
struct Descriptors {
    cgroup: Option<OwnedFd>,
    tasks: Vec<OwnedFd>,
    cgroup_trees: Vec<OwnedFd>,
}

impl ProcessAhead {
    /// Clones it. What it cannot do it says to whoever hands it a container.
    pub(crate) fn start(
        proof: SingleThreaded,
        plan: &PreparePlan,
        fds: Vec<OwnedFd>,
        sandbox: &Sandbox,
        null: &OwnedFd,
    ) -> Result<Self, Failure> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or(Errno::BADF).at("receive a descriptor");
        let (cgroup, tasks) = take_cgroups(&mut next, plan.cgroup_v2, plan.cgroup_v1)?;
        let cgroup_trees = plan.cgroup_trees.iter().map(|_| next()).collect::<Result<_, _>>()?;
        let descriptors = Descriptors { cgroup, tasks, cgroup_trees };
        let (channel, child_channel) = report_channel()?;
        let options = CloneOptions {
            new_pid_namespace: true,
            new_mount_namespace: true,
            cgroup: descriptors.cgroup.as_ref().map(AsFd::as_fd),
            ..CloneOptions::default()
        };
        let body = || {
            // Its copies of infra's sockets would be all that is left of infra where that dies, and its own copy of the channel's other end
            // would keep it from hearing of that.
            let mut kept: Vec<BorrowedFd<'_>> = vec![child_channel.as_fd(), null.as_fd()];
            kept.extend(descriptors.tasks.iter().chain(&descriptors.cgroup_trees).map(AsFd::as_fd));
            sys::fd::end_with_only(3, &kept, || {
                let failure = match wait_for_plan(plan, &descriptors, sandbox, null, &child_channel) {
                    Ok(never) => match never {},
                    Err(failure) => failure,
                };
                drop(tell(&child_channel, &ChildMessage::Failed(failure)));
                127
            })
        };
        let child = clone_process(proof, &options, body).at("clone")?;
        Ok(Self { id: plan.id.clone(), child, channel })
    }

    /// Whether it can become that container.
    pub(crate) fn serves(&self, plan: &ContainerPlan) -> bool {
        // Root and streams come beside the mounts.
        let fits = plan.mounts.len() + 4 <= MAX_DESCRIPTORS;
        let hides_the_usual = View::of(plan) == View::Usual && plan.read_only_paths.is_none();
        self.id == plan.id && plan.pid.is_none() && hides_the_usual && fits
    }

    /// Tells it what it becomes; `None` where it is gone, and nothing is lost by that.
    pub(crate) fn hand_over(
        self,
        plan: &ContainerPlan,
        descriptors: &mut ContainerDescriptors,
    ) -> Result<Option<Born>, Failure> {
        let handed_over = self.send(plan, descriptors);
        let Self { child, channel, .. } = self;
        if let Ok(Some(pipes)) = handed_over {
            descriptors.mounts.clear();
            return Ok(Some(Born { child, channel, pipes }));
        }
        kill_and_reap(&child);
        handed_over.map(|_gone| None)
    }

    /// infra's ends of the streams, if it has heard of the container.
    fn send(&self, plan: &ContainerPlan, descriptors: &ContainerDescriptors) -> Result<Option<Pipes>, Failure> {
        let process = &plan.process;
        let streams =
            if process.tty { Streams::default() } else { Streams::open(Owner::of(process, None), plan.stdin)? };
        let (mounts, memory) = with_memory_opened(&plan.mounts)?;
        let (mut detached, mut memory) = (descriptors.mounts.iter(), memory.iter());
        let Pipes { stdin, stdout, stderr } = &streams.theirs;
        let mut fds = vec![descriptors.rootfs.as_fd()];
        fds.extend([stdin, stdout, stderr].into_iter().flatten().map(AsFd::as_fd));
        for mount in &plan.mounts {
            let tree = match mount.source {
                MountSource::Detached { .. } | MountSource::Image => detached.next(),
                MountSource::Tmpfs { .. } => memory.next(),
            };
            fds.push(tree.ok_or(Errno::BADF).at_path("receive the mount of", &mount.target)?.as_fd());
        }
        let plan = ContainerPlan { mounts, ..plan.clone() };
        let message = wire::encode(0, &ChildMessage::Become(Box::new(plan)));
        Ok(wire::send(&self.channel, &message, &fds).is_ok().then_some(streams.ours))
    }
}

/// A Pod's memory was mounted after the process had its copy of infra's mounts, so infra opens it.
fn with_memory_opened(mounts: &[MountPlan]) -> Result<(Vec<MountPlan>, Vec<OwnedFd>), Failure> {
    let mut opened = Vec::new();
    let mut open = |mount: &MountPlan| {
        let MountSource::Tmpfs { volume } = &mount.source else { return Ok(mount.clone()) };
        let (tree, kind) = part_of_memory(mount, &tmpfs_path(volume))?;
        opened.push(tree);
        let source = MountSource::Detached { directory: kind == MountPoint::Directory };
        Ok(MountPlan { source, sub_path: None, ..mount.clone() })
    };
    let mounts = mounts.iter().map(&mut open).collect::<Result<_, _>>()?;
    Ok((mounts, opened))
}

/// Runs in the new process. It ends when nobody is there any more who could tell it what to become.
fn wait_for_plan(
    plan: &PreparePlan,
    descriptors: &Descriptors,
    sandbox: &Sandbox,
    null: &OwnedFd,
    channel: &OwnedFd,
) -> Result<Infallible, Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).at("set the death signal")?;
    if let Some(title) = sandbox.title {
        title.show(&format!("(container) {}", plan.id));
    }
    join_cgroups(&descriptors.tasks)?;
    begin_session()?;
    let surroundings = Surroundings {
        in_user_namespace: false,
        cgroup_mounts: &sandbox.cgroup_mounts,
        cgroup_trees: (&plan.cgroup_trees, &descriptors.cgroup_trees),
        ahead: sandbox.ahead == Ahead::Assembled,
    };
    let mut kernel_files = KernelFiles::assemble(surroundings, View::Usual)?;
    kernel_files.mask()?;
    let frame = wire::receive(channel).at("hear from infra")?.ok_or(Errno::PIPE).at("hear from infra")?;
    let Some(ChildMessage::Become(plan)) = frame.body() else { return Err(Errno::PROTO).at("hear from infra") };
    let program = Program::of(&plan.process)?;
    let mut fds = frame.descriptors.into_iter();
    let mut next = || fds.next().ok_or(Errno::BADF).at("receive a descriptor");
    let root = next()?;
    let mut stream = |wanted: bool| (wanted && !plan.process.tty).then(&mut next).transpose();
    let pipes = Pipes { stdin: stream(plan.stdin)?, stdout: stream(true)?, stderr: stream(true)? };
    let mounts = fds.collect();
    set_oom_score(plan.oom_score_adj)?;
    let confinement = Confinement::open(&plan.process)?;
    let rootfs = Rootfs::attach(&root, kernel_files, false)?;
    let stdio = Stdio { pipes: &pipes, null };
    become_container(&plan, &program, rootfs, mounts, (stdio, confinement.as_ref()), channel)
}
