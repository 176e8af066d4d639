//! The command line: what can be said, and the help that teaches it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::{
    apply, backup, check, cp, cri, debug, delete, describe, events, exec, get, image, kubeconfig, logs, port_forward,
    reset, run, serve, shutdown, timeline, top, version, wait,
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "monopod",
    version,
    about = "Runs Kubernetes Pods on this machine, without a cluster",
    long_about = "Runs Kubernetes Pods on this machine, without a cluster.\n\n\
        A Pod is a group of containers that belong together: they share one IP address, talk over localhost, and \
        exchange files on shared volumes. Monopod takes ordinary Pod manifests and speaks the Kubernetes API, so what \
        runs here runs on a cluster, too.",
    after_help = "First steps, as root:\n  \
        monopod check                              is this machine able to run Pods?\n  \
        monopod serve                              start the daemon (in another terminal, or as a service)\n  \
        monopod image load nginx.tar               bring an image\n  \
        monopod run -f pod.yaml                    start a Pod and see it become ready\n  \
        monopod logs -f web                        follow its output\n  \
        monopod exec -it web -- /bin/sh            look around inside\n  \
        monopod delete -f pod.yaml                 end it\n\n\
        `monopod COMMAND --help` shows examples of each command.",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 120
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub struct Global {
    /// The daemon's socket
    #[arg(
        long,
        global = true,
        env = "MONOPOD_SOCKET",
        default_value = "/run/monopod/monopod.sock",
        value_name = "PATH"
    )]
    #[arg(help_heading = "Global options", hide_env_values = true)]
    pub socket: PathBuf,
    /// The Kubernetes namespace to act in [default: default]
    #[arg(short = 'n', long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub namespace: Option<String>,
}

/// The commands, in the order in which a person meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start Pods and see them become ready
    #[command(
        override_usage = "monopod run -f FILE [--attach]\n       monopod run NAME --image IMAGE [OPTIONS] [-- ARGS...]",
        after_help = "Examples:\n  \
            monopod run -f pod.yaml                    apply the manifest, wait until the Pod is ready\n  \
            monopod run -f pod.yaml --attach           stay with its output; Ctrl-C deletes the Pod\n  \
            monopod run web --image nginx:1.27         a Pod of one container, without a manifest\n  \
            monopod run -it --rm sh --image debian     a shell in a Pod that goes when you leave\n  \
            monopod run job --image debian --restart Never -- date"
    )]
    Run(run::RunArgs),
    /// Show objects of any kind
    #[command(after_help = "Examples:\n  \
        monopod get pods                           the Pods of the namespace\n  \
        monopod get pods -A -o wide                all Pods, with their addresses\n  \
        monopod get pod web -o yaml                one Pod, whole\n  \
        monopod get pods -w                        changes as they come\n  \
        monopod get po,cm -l app=web               several kinds, chosen by label\n  \
        monopod get all                            all that runs or is reached\n  \
        monopod get pods --sort-by .metadata.creationTimestamp\n  \
        monopod get pods -o 'jsonpath={.items[*].status.podIP}'\n\n\
        Any kind that the daemon serves can be named: pods (po), services (svc), roles, leases, …")]
    Get(get::GetArgs),
    /// Show an object in detail, with its events
    #[command(after_help = "Examples:\n  monopod describe pod web\n  monopod describe node")]
    Describe(describe::DescribeArgs),
    /// Print what containers have written
    #[command(after_help = "Examples:\n  \
        monopod logs web                           the first container's log\n  \
        monopod logs web -c sidecar -f             follow another container's\n  \
        monopod logs web --previous                of the run before the last restart\n  \
        monopod logs web --all-containers --prefix --since 10m\n  \
        monopod logs -l app=web -f --prefix        of all Pods with a label")]
    Logs(logs::LogsArgs),
    /// Run a program in a container
    #[command(
        override_usage = "monopod exec POD [-c CONTAINER] [-i] [-t] -- COMMAND [ARGS...]",
        after_help = "Examples:\n  \
            monopod exec web -- ls /etc                print a directory of the first container\n  \
            monopod exec -it web -c sidecar -- bash    a shell, with a real terminal\n  \
            monopod exec web -it bash                  the same without `--`, in the first container\n  \
            tar c site | monopod exec -i web -- tar x -C /usr/share/nginx/html\n\n\
            The exit status is the program's own."
    )]
    Exec(exec::ExecArgs),
    /// Connect to the program that a container runs
    #[command(after_help = "Examples:\n  \
        monopod attach web                         see its output from now on\n  \
        monopod attach -it web -c shell            with the keyboard (`stdin: true`, `tty: true` in the spec)")]
    Attach(exec::AttachArgs),
    /// Copy files and directories into and out of containers, by tar
    #[command(after_help = "Examples:\n  \
        monopod cp site web:/usr/share/nginx/html  a directory into the Pod `web`\n  \
        monopod cp web:/var/log/nginx logs -c nginx\n  \
        monopod cp shop/web:/etc/hostname name.txt of a Pod in another namespace\n\n\
        The container needs `tar`. Symbolic links are not copied out.")]
    Cp(cp::CpArgs),
    /// Listen on local ports and forward connections to a Pod
    #[command(after_help = "Examples:\n  \
        monopod port-forward web 8080:80           local port 8080 leads to the Pod's port 80\n  \
        monopod port-forward web 80 :9090          the same port, and one that is free\n  \
        monopod port-forward svc/web 8080:http     to a Pod of a Service, by its port's name\n  \
        monopod port-forward web 8080:80 --address 0.0.0.0")]
    PortForward(port_forward::PortForwardArgs),
    /// Look into a running Pod, or at the node, with a container of tools
    #[command(after_help = "Examples:\n  \
        monopod debug -it web --image busybox                   a shell beside the Pod's containers\n  \
        monopod debug -it web --image busybox --target nginx    that sees the processes of one of them\n  \
        monopod debug -it node/n1 --image busybox               on the machine; its files are in /host")]
    Debug(debug::DebugArgs),
    /// Create objects, or bring those that exist to what their manifests say
    #[command(after_help = "Examples:\n  \
        monopod apply -f pod.yaml                  one file, with one or more documents\n  \
        monopod apply -f ./manifests/ -R           a directory and those below\n  \
        cat pod.yaml | monopod apply -f -          standard input\n\n\
        A running Pod can hardly be changed: delete it and apply again.")]
    Apply(apply::ApplyArgs),
    /// Create objects; those that exist already are an error
    #[command(after_help = "Examples:\n  monopod create -f pod.yaml")]
    Create(apply::ApplyArgs),
    /// Delete objects and wait until they are gone
    #[command(after_help = "Examples:\n  \
        monopod delete -f pod.yaml                 what a manifest names\n  \
        monopod delete pod web db                  by name\n  \
        monopod delete pods -l app=web             by label\n  \
        monopod delete pod web --now               one second to end instead of thirty\n  \
        monopod delete pod web --force             kill at once")]
    Delete(delete::DeleteArgs),
    /// Wait until objects are in a condition, or gone
    #[command(after_help = "Examples:\n  \
        monopod wait pod/web --for=condition=Ready --timeout=60s\n  \
        monopod wait pod/web --for=delete")]
    Wait(wait::WaitArgs),
    /// Show what happened
    #[command(after_help = "Examples:\n  \
        monopod events                             in the namespace, oldest first\n  \
        monopod events --for pod/web -w            of one Pod, as they come\n  \
        monopod events -A --types Warning          troubles everywhere")]
    Events(events::EventsArgs),
    /// Show what Pods or the node use of processor and memory
    #[command(after_help = "Examples:\n  \
        monopod top                                the Pods of the namespace\n  \
        monopod top pods -A --sort-by memory       all Pods, the greediest first\n  \
        monopod top pod web --containers           each container of one Pod\n  \
        monopod top node")]
    Top(top::TopArgs),
    /// Draw the life of a Pod: who waited for what, how long, and who ended first
    Timeline(timeline::TimelineArgs),
    /// Pull, load, import, list and remove images
    Image(image::ImageArgs),
    /// Print how kubectl and other clients reach the daemon, or add it to their configuration
    #[command(after_help = "Examples:\n  \
        monopod kubeconfig --merge                 a context `monopod` for kubectl\n  \
        monopod kubeconfig --user jane             a second user, who may do what roles allow\n  \
        monopod kubeconfig --server https://box.example:6440 > box.yaml    to take to another machine")]
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// Run the daemon
    #[command(after_help = "Examples:\n  \
        monopod serve                              with the usual directories, until Ctrl-C or SIGTERM\n  \
        monopod serve --data-dir /srv/pods --run-dir /run/pods --pod-cidr 10.99.0.0/16 \\\n          \
            --listen 127.0.0.1:6441            a second daemon beside the first\n  \
        monopod serve --listen 0.0.0.0:6440 --tls-name box.example    for other machines, too\n\n\
        Pods run on when the daemon ends, and the next start takes them over.")]
    Serve(Box<serve::ServeArgs>),
    /// Run the engine for a kubelet: the container runtime interface (CRI v1) instead of the Kubernetes API
    #[command(after_help = "Examples:\n  \
        monopod cri                                at unix:///run/monopod/cri.sock, for kubelet and crictl\n  \
        crictl -r unix:///run/monopod/cri.sock ps  what runs\n  \
        kubelet --container-runtime-endpoint=unix:///run/monopod/cri.sock --cgroup-driver=cgroupfs …\n\n\
        Pods run on when the daemon ends, and the next start takes them over.")]
    Cri(Box<cri::CriArgs>),
    /// Find out whether this machine can run Pods, and what is in the way
    Check(check::CheckArgs),
    /// End Pods in their time because the machine shuts down; the systemd unit calls it
    Shutdown(shutdown::ShutdownArgs),
    /// Write all that is state to a file, while the daemon runs
    Backup(backup::BackupArgs),
    /// Make the state of a backup that of this machine; the daemon must not run
    Restore(backup::RestoreArgs),
    /// Stop everything and remove every trace
    #[command(
        after_help = "Examples:\n  monopod reset                              asks before it does anything\n  monopod reset --yes --data-dir /srv/pods --run-dir /run/pods"
    )]
    Reset(reset::ResetArgs),
    /// Print a script that completes commands in the shell
    #[command(after_help = "Examples:\n  \
        monopod completion bash > /etc/bash_completion.d/monopod\n  \
        monopod completion zsh > \"${fpath[1]}/_monopod\"\n  \
        monopod completion fish > ~/.config/fish/completions/monopod.fish")]
    Completion {
        /// The shell
        #[arg(value_parser = clap::value_parser!(Shell))]
        shell: Shell,
    },
    /// Print the versions of this program and of the daemon
    Version(version::VersionArgs),
}
