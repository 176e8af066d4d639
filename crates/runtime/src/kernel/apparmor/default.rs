//! The profile of containers that have none of their own: a second wall behind capabilities, seccomp, namespaces and
//! mounts, which holds also where a Pod has a gap made in one of those.

/// Its name in the kernel.
pub(super) const NAME: &str = "monopod-default";

/// Text for apparmor_parser(8). `has_abi_3`: the machine has the description of what AppArmor 3 mediates; by it a newer
/// kernel refuses nothing that this text does not speak of.
pub(super) fn profile(has_abi_3: bool) -> String {
    let abi = if has_abi_3 { "abi <abi/3.0>,\n" } else { "" };
    format!("{abi}profile {NAME} flags=(attach_disconnected, mediate_deleted) {{\n{RULES}}}\n")
}

/// What AppArmor does not read as a rule of its own stays refused: a change of profile, pivot_root(2), D-Bus of the machine.
const RULES: &str = "
  # Which of these a container has is decided by its capabilities, its namespaces and its mounts.
  capability,
  network,
  file,
  umount,

  # Mounting could lay something else over what is hidden or read-only.
  deny mount,

  # The engine and people on the machine signal and trace containers; containers only each other.
  signal (receive),
  signal (send) peer=monopod-default,
  ptrace (readby, tracedby),
  ptrace (read, trace) peer=monopod-default,

  # In /proc a process writes to the directories of processes and to sys/kernel/shm*.
  deny /proc/* w,
  deny /proc/[^0-9s]*/** w,
  deny /proc/s[^y]*/** w,
  deny /proc/sy[^s]*/** w,
  deny /proc/sys[^/]*/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/k[^e]** w,
  deny /proc/sys/kernel/[^s]** w,
  deny /proc/sys/kernel/s[^h]** w,
  deny /proc/sys/kernel/sh[^m]** w,

  # The machine's memory and keyboard.
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /proc/kmem rwklx,
  deny /proc/mem rwklx,

  # In /sys it writes to control groups.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,

  # Firmware, power meters that tell secrets (CVE-2020-8694), and policies.
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
";
