// floor.c - what the bare kernel needs for the work of a Pod engine: the least that any engine on this machine can take.
// One static program, raw system calls, raw rtnetlink, nothing started beside. All of it happens in a mount and a network
// namespace made at start; nothing is left on the machine but, until the end, cgroups named limitbench*.
//
//   floor WORKDIR TEST N      TEST: pod, exec, logs or streams; WORKDIR has lower/ (a busybox root) and tiny (tiny.c),
//                             for the last two also lines and lines.tar
//
// Prints a line for each variant: its name, then each time in microseconds, separated by tabs.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/if_link.h>
#include <linux/if_addr.h>
#include <linux/mount.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/veth.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef CLONE_NEWCGROUP
#define CLONE_NEWCGROUP 0x02000000
#endif
#define MNT_DETACH 2
extern int mount(const char *, const char *, const char *, unsigned long, const void *);
extern int umount2(const char *, int);

#define die(...) do { fprintf(stderr, "%s:%d: ", __func__, __LINE__); fprintf(stderr, __VA_ARGS__); \
    fprintf(stderr, ": %s\n", strerror(errno)); _exit(97); } while (0)
#define CK(x) ({ long _r = (long)(x); if (_r < 0) die("%s", #x); _r; })

static inline uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}
static int sys_fsopen(const char *t) { return syscall(SYS_fsopen, t, 1 /*CLOEXEC*/); }
static int sys_fsconfig(int fd, unsigned c, const char *k, const void *v, int a) { return syscall(SYS_fsconfig, fd, c, k, v, a); }
static int sys_fsmount(int fd, unsigned a) { return syscall(SYS_fsmount, fd, 1 /*CLOEXEC*/, a); }
static int sys_move_mount(int fd, const char *p, int tfd, const char *tp, unsigned f) { return syscall(SYS_move_mount, fd, p, tfd, tp, f); }
static int sys_open_tree(int fd, const char *p, unsigned f) { return syscall(SYS_open_tree, fd, p, f); }
static int sys_pivot_root(const char *a, const char *b) { return syscall(SYS_pivot_root, a, b); }

static pid_t sys_clone3(uint64_t flags, int *pidfd, int cgroup_fd) {
  struct clone_args a = {0};
  a.flags = flags | (pidfd ? CLONE_PIDFD : 0) | (cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0);
  a.pidfd = (uint64_t)(uintptr_t)pidfd;
  a.exit_signal = SIGCHLD;
  if (cgroup_fd >= 0) a.cgroup = cgroup_fd;
  return syscall(SYS_clone3, &a, sizeof a);
}

// ---------------------------------------------------------------- statistics
static void report(const char *variant, uint64_t *v, int n) {
  printf("%s", variant);
  for (int i = 0; i < n; i++) printf("\t%.1f", v[i] / 1e3);
  printf("\n");
  fflush(stdout);
}
typedef uint64_t (*fn_t)(void *);
typedef struct { const char *name; fn_t f; void *arg; } variant;
// interleaved A/B/C/A/B/C...
static void run_group(variant *vs, int nv, int n) {
  uint64_t **r = calloc(nv, sizeof *r);
  for (int j = 0; j < nv; j++) r[j] = calloc(n, 8);
  for (int j = 0; j < nv; j++) vs[j].f(vs[j].arg);  // warm up
  for (int i = 0; i < n; i++) for (int j = 0; j < nv; j++) r[j][i] = vs[j].f(vs[j].arg);
  for (int j = 0; j < nv; j++) { report(vs[j].name, r[j], n); free(r[j]); }
  free(r);
}
#define GROUP(n, ...) do { variant _v[] = {__VA_ARGS__}; run_group(_v, sizeof _v / sizeof *_v, n); } while (0)

// ---------------------------------------------------------------- globals
static char W[256];                       // work directory (tmpfs or ext4), absolute
static char MERGED[300], LOWER[300];
static int g_hostns = -1;                 // the outer (private) network namespace
static int g_nl = -1;                     // rtnetlink socket in the outer namespace
static int g_br = 0;                      // ifindex of the bridge
static int g_seq = 1;
static char *const ENVP[] = {"PATH=/bin:/usr/bin", NULL};

static void put(const char *p, const char *s) {
  int fd = open(p, O_WRONLY | O_CLOEXEC);
  if (fd < 0) die("open %s", p);
  if (write(fd, s, strlen(s)) < 0) die("write %s", p);
  close(fd);
}
static void wait_ok(pid_t p) {
  int st;
  while (waitpid(p, &st, 0) < 0) if (errno != EINTR) die("waitpid");
  if (!WIFEXITED(st) || WEXITSTATUS(st)) { fprintf(stderr, "child status %x\n", st); _exit(96); }
}


static char HOST_TINY[300];

// ---------------------------------------------------------------- 2. container set-up
enum { M_NONE, M_CLASSIC, M_NEWAPI, M_PREASM };
typedef struct {
  uint64_t ns;        // clone flags
  int mode;           // M_*
  bool chroot_only;   // move_mount to / + chroot instead of pivot_root + MNT_DETACH
  bool full;          // devpts, shm, device nodes, symlinks, masked/readonly paths as a normal OCI config has
  bool nosysfs, nomqueue, noproc, nodev, novol;
  bool vfork;         // CLONE_VM|CLONE_VFORK
  const char *exe;    // inside the rootfs
  int pre_ov;         // pre-assembled detached tree
  int netfd, ipcfd, utsfd;
  const char *cg[4];  // cgroup dirs to join by writing "0" to tasks
  int ncg;
  bool cgns;          // a cgroup namespace of its own
  bool sleep;         // exec a process that stays
} ctr;

static void dev_nodes(void) {
  static const struct { const char *n; int maj, min; } d[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
  for (unsigned i = 0; i < 6; i++) CK(mknod(d[i].n, S_IFCHR | 0666, makedev(d[i].maj, d[i].min)));
  CK(symlink("/proc/self/fd", "fd"));
  CK(symlink("/proc/self/fd/0", "stdin"));
  CK(symlink("/proc/self/fd/1", "stdout"));
  CK(symlink("/proc/self/fd/2", "stderr"));
  CK(symlink("pts/ptmx", "ptmx"));
}
static int new_fs(const char *type, const char *const *kv, unsigned attr) {
  int f = CK(sys_fsopen(type));
  for (; kv && kv[0]; kv += 2) CK(sys_fsconfig(f, FSCONFIG_SET_STRING, kv[0], kv[1], 0));
  CK(sys_fsconfig(f, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
  int m = CK(sys_fsmount(f, attr));
  close(f);
  return m;
}
// every container gets fresh upper/work directories, made before and removed after the timed part.
// "volatile" matters: without it, unmounting an overlay syncs the whole upper file system.
static int g_ovn;
static int g_vol = 1;
static void ov_prep(void) {
  char d[340];
  g_ovn++;
  snprintf(d, sizeof d, "%s/ov/%d", W, g_ovn); CK(mkdir(d, 0755));
  snprintf(d, sizeof d, "%s/ov/%d/u", W, g_ovn); CK(mkdir(d, 0755));
  snprintf(d, sizeof d, "%s/ov/%d/w", W, g_ovn); CK(mkdir(d, 0755));
}
static int rm_cb(const char *p, const struct stat *st, int f, struct FTW *w) { (void)st; (void)f; (void)w; return remove(p); }
static void ov_clean(int k) {
  char d[340];
  snprintf(d, sizeof d, "%s/ov/%d", W, k);
  nftw(d, rm_cb, 16, FTW_DEPTH | FTW_PHYS);
}
static int ov_fd(void) {  // detached overlay mount
  char up[320], wk[320];
  snprintf(up, sizeof up, "%s/ov/%d/u", W, g_ovn);
  snprintf(wk, sizeof wk, "%s/ov/%d/w", W, g_ovn);
  int f = CK(sys_fsopen("overlay"));
  CK(sys_fsconfig(f, FSCONFIG_SET_STRING, "lowerdir", LOWER, 0));
  CK(sys_fsconfig(f, FSCONFIG_SET_STRING, "upperdir", up, 0));
  CK(sys_fsconfig(f, FSCONFIG_SET_STRING, "workdir", wk, 0));
  if (g_vol) CK(sys_fsconfig(f, FSCONFIG_SET_FLAG, "volatile", NULL, 0));
  CK(sys_fsconfig(f, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
  int m = CK(sys_fsmount(f, 0));
  close(f);
  return m;
}
static const char *MASK[] = {"proc/kcore", "proc/keys", "proc/timer_list", "proc/sched_debug", NULL};
static const char *RO[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger", NULL};

static int ctr_child(void *arg) {
  ctr *c = arg;
  CK(prctl(PR_SET_PDEATHSIG, SIGKILL));  // a floor that fails leaves nothing running
  for (int i = 0; i < c->ncg; i++) put(c->cg[i], "0");
  // After that: on v2 a process moves only within its cgroup namespace.
  if (c->cgns) CK(unshare(CLONE_NEWCGROUP));
  if (c->netfd > 0) CK(setns(c->netfd, CLONE_NEWNET));
  if (c->ipcfd > 0) CK(setns(c->ipcfd, CLONE_NEWIPC));
  if (c->utsfd > 0) CK(setns(c->utsfd, CLONE_NEWUTS));
  if (c->ns & CLONE_NEWNS) {
    int rootfd = -1;
    if (c->mode == M_CLASSIC) {
      char o[1200];
      CK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
      snprintf(o, sizeof o, "lowerdir=%s,upperdir=%s/ov/%d/u,workdir=%s/ov/%d/w%s", LOWER, W, g_ovn, W, g_ovn, c->novol ? "" : ",volatile");
      CK(mount("overlay", MERGED, "overlay", 0, o));
      CK(chdir(MERGED));
      if (!c->noproc) CK(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
      if (!c->nodev) CK(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k"));
      if (!c->nosysfs) CK(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL));
      if (!c->nodev && (!c->nomqueue || c->full)) {
        CK(mkdir("dev/mqueue", 0755));
        if (!c->nomqueue) CK(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
      }
      if (c->full) {
        CK(mkdir("dev/pts", 0755));
        CK(mkdir("dev/shm", 01777));
        CK(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"));
        CK(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k"));
        CK(chdir("dev"));
        dev_nodes();
        CK(chdir(".."));
        for (const char **m = MASK; *m; m++) if (mount("dev/null", *m, NULL, MS_BIND, NULL) && errno != ENOENT) die("%s", *m);
        for (const char **m = RO; *m; m++) {
          if (mount(*m, *m, NULL, MS_BIND | MS_REC, NULL)) { if (errno == ENOENT) continue; die("%s", *m); }
          CK(mount(NULL, *m, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
        }
      }
    } else if (c->mode == M_NEWAPI || c->mode == M_PREASM) {
      int ov = c->mode == M_PREASM ? c->pre_ov : ov_fd();
      rootfd = ov;
      unsigned nsx = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
      if (!c->noproc) {
        int f = new_fs("proc", NULL, nsx);
        CK(sys_move_mount(f, "", ov, "proc", MOVE_MOUNT_F_EMPTY_PATH));
        close(f);
      }
      if (c->mode == M_NEWAPI && !c->nodev) {
        const char *kv[] = {"mode", "755", "size", "65536k", NULL};
        int f = new_fs("tmpfs", kv, MOUNT_ATTR_NOSUID);
        if (!c->nomqueue) CK(mkdirat(f, "mqueue", 0755));
        CK(sys_move_mount(f, "", ov, "dev", MOVE_MOUNT_F_EMPTY_PATH));
        if (c->full) {
          CK(fchdir(f));
          dev_nodes();
          CK(mkdirat(f, "pts", 0755));
          CK(mkdirat(f, "shm", 0755));
          const char *kp[] = {"ptmxmode", "0666", "mode", "0620", NULL};
          int g = new_fs("devpts", kp, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
          CK(sys_move_mount(g, "", ov, "dev/pts", MOVE_MOUNT_F_EMPTY_PATH));
          close(g);
          const char *ks[] = {"mode", "1777", "size", "65536k", NULL};
          g = new_fs("tmpfs", ks, nsx);
          CK(sys_move_mount(g, "", ov, "dev/shm", MOVE_MOUNT_F_EMPTY_PATH));
          close(g);
        }
        close(f);
      }
      if (!c->nosysfs) {
        int f = new_fs("sysfs", NULL, nsx | MOUNT_ATTR_RDONLY);
        CK(sys_move_mount(f, "", ov, "sys", MOVE_MOUNT_F_EMPTY_PATH));
        close(f);
      }
      if (!c->nodev && !c->nomqueue) {
        int f = new_fs("mqueue", NULL, nsx);
        CK(sys_move_mount(f, "", ov, "dev/mqueue", MOVE_MOUNT_F_EMPTY_PATH));
        close(f);
      }
      if (c->full) {
        CK(fchdir(ov));
        for (const char **m = MASK; *m; m++) {
          int f = sys_open_tree(ov, "dev/null", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
          if (f < 0) die("open_tree");
          if (sys_move_mount(f, "", ov, *m, MOVE_MOUNT_F_EMPTY_PATH) && errno != ENOENT) die("mask %s", *m);
          close(f);
        }
        for (const char **m = RO; *m; m++) {
          int f = sys_open_tree(ov, *m, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
          if (f < 0) { if (errno == ENOENT) continue; die("ro %s", *m); }
          struct mount_attr a = {.attr_set = MOUNT_ATTR_RDONLY};
          CK(syscall(SYS_mount_setattr, f, "", AT_EMPTY_PATH, &a, sizeof a));
          CK(sys_move_mount(f, "", ov, *m, MOVE_MOUNT_F_EMPTY_PATH));
          close(f);
        }
      }
      if (c->chroot_only) CK(sys_move_mount(ov, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH));
      else CK(sys_move_mount(ov, "", AT_FDCWD, MERGED, MOVE_MOUNT_F_EMPTY_PATH));
      CK(fchdir(ov));
    }
    if (c->mode != M_NONE) {
      if (c->chroot_only) {
        if (c->mode == M_CLASSIC) CK(mount(".", "/", NULL, MS_MOVE, NULL));
        CK(chroot("."));
      } else {
        CK(sys_pivot_root(".", "."));
        CK(umount2(".", MNT_DETACH));
      }
      CK(chdir("/"));
    }
    (void)rootfd;
  }
  char *argv[] = {(char *)c->exe, c->sleep ? "1000000" : NULL, NULL};
  execve(c->exe, argv, ENVP);
  die("exec %s", c->exe);
}
static char g_stack[1 << 18] __attribute__((aligned(64)));
static pid_t ctr_spawn(ctr *c, int *pidfd) {
  pid_t p;
  if (c->vfork) {
    p = clone(ctr_child, g_stack + sizeof g_stack, (int)(c->ns | CLONE_VM | CLONE_VFORK | SIGCHLD | (pidfd ? CLONE_PIDFD : 0)), c, pidfd);
  } else {
    p = sys_clone3(c->ns, pidfd, -1);
    if (p == 0) _exit(ctr_child(c));
  }
  if (p < 0) die("clone");
  return p;
}
// a detached tree made ahead of time: overlay + /dev (tmpfs, nodes, pts, shm). 6.15+: mounts onto detached mounts.
static int preassemble(bool full) {
  int ov = ov_fd();
  const char *kv[] = {"mode", "755", "size", "65536k", NULL};
  int f = new_fs("tmpfs", kv, MOUNT_ATTR_NOSUID);
  CK(mkdirat(f, "mqueue", 0755));
  if (full) {
    CK(fchdir(f));
    dev_nodes();
    CK(mkdirat(f, "pts", 0755));
    CK(mkdirat(f, "shm", 0755));
    CK(chdir("/"));
  }
  CK(sys_move_mount(f, "", ov, "dev", MOVE_MOUNT_F_EMPTY_PATH));
  close(f);
  if (full) {
    const char *kp[] = {"ptmxmode", "0666", "mode", "0620", NULL};
    int g = new_fs("devpts", kp, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    CK(sys_move_mount(g, "", ov, "dev/pts", MOVE_MOUNT_F_EMPTY_PATH));
    close(g);
    const char *ks[] = {"mode", "1777", "size", "65536k", NULL};
    g = new_fs("tmpfs", ks, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    CK(sys_move_mount(g, "", ov, "dev/shm", MOVE_MOUNT_F_EMPTY_PATH));
    close(g);
  }
  return ov;
}

static bool can_preassemble(void) {
  int below = new_fs("tmpfs", NULL, 0), above = new_fs("tmpfs", NULL, 0);
  CK(mkdirat(below, "on", 0755));
  bool can = !sys_move_mount(above, "", below, "on", MOVE_MOUNT_F_EMPTY_PATH);
  close(above);
  close(below);
  return can;
}

// ---------------------------------------------------------------- 3. rtnetlink
typedef struct { char b[4096]; int len; struct nlmsghdr *h; int n; } nlb;
static void nl_new(nlb *m, int type, int flags, const void *hdr, int hl) {
  m->h = (struct nlmsghdr *)(m->b + m->len);
  memset(m->h, 0, NLMSG_LENGTH(NLMSG_ALIGN(hl)));
  m->h->nlmsg_type = type;
  m->h->nlmsg_flags = NLM_F_REQUEST | flags;
  m->h->nlmsg_seq = ++g_seq;
  m->h->nlmsg_len = NLMSG_LENGTH(hl);
  memcpy(NLMSG_DATA(m->h), hdr, hl);
  m->n++;
}
static struct rtattr *nl_attr(nlb *m, int type, const void *d, int l) {
  struct rtattr *a = (struct rtattr *)((char *)m->h + NLMSG_ALIGN(m->h->nlmsg_len));
  a->rta_type = type;
  a->rta_len = RTA_LENGTH(l);
  if (l) memcpy(RTA_DATA(a), d, l);
  m->h->nlmsg_len = NLMSG_ALIGN(m->h->nlmsg_len) + RTA_ALIGN(a->rta_len);
  return a;
}
static void nl_end_nest(nlb *m, struct rtattr *a) { a->rta_len = (char *)m->h + m->h->nlmsg_len - (char *)a; }
static void nl_fin(nlb *m) { m->len += NLMSG_ALIGN(m->h->nlmsg_len); }
// send the batch; only the last message asks for an ACK, errors of the others arrive anyway
static int nl_go(int s, nlb *m) {
  m->h->nlmsg_flags |= NLM_F_ACK;
  unsigned last = m->h->nlmsg_seq;
  if (send(s, m->b, m->len, 0) < 0) die("nl send");
  char r[8192];
  int err = 0;
  for (;;) {
    int n = recv(s, r, sizeof r, 0);
    if (n < 0) die("nl recv");
    for (struct nlmsghdr *h = (void *)r; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n))
      if (h->nlmsg_type == NLMSG_ERROR) {
        int e = ((struct nlmsgerr *)NLMSG_DATA(h))->error;
        if (e && !err) err = e;
        if (h->nlmsg_seq == last) { m->len = 0; m->n = 0; return err; }
      }
  }
}
static int nl_sock(void) {
  int s = CK(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  int one = 1;
  setsockopt(s, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
  return s;
}
static void nlck(int e, const char *w) { if (e) { errno = -e; die("%s", w); } }
static void link_up(nlb *m, int idx) {
  struct ifinfomsg i = {.ifi_index = idx, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
  nl_new(m, RTM_NEWLINK, 0, &i, sizeof i);
  nl_fin(m);
}
static void addr_add(nlb *m, int idx, uint32_t ip, int plen) {
  struct ifaddrmsg a = {.ifa_family = AF_INET, .ifa_prefixlen = plen, .ifa_index = idx};
  nl_new(m, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &a, sizeof a);
  uint32_t v = htonl(ip);
  nl_attr(m, IFA_LOCAL, &v, 4);
  nl_attr(m, IFA_ADDRESS, &v, 4);
  nl_fin(m);
}
static void route_def(nlb *m, int idx, uint32_t gw) {
  struct rtmsg r = {.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC, .rtm_scope = RT_SCOPE_UNIVERSE, .rtm_type = RTN_UNICAST};
  nl_new(m, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &r, sizeof r);
  uint32_t v = htonl(gw);
  nl_attr(m, RTA_GATEWAY, &v, 4);
  nl_attr(m, RTA_OIF, &idx, 4);
  nl_fin(m);
}
enum { V_UP = 1, V_MASTER = 2, V_1Q = 4, V_GROUP = 8 };
// one message: veth pair, host end up and in the bridge, peer born in the pod's namespace as eth0 (index 2)
static void veth_msg(nlb *m, const char *name, int nsfd, int fl, const char *kind, const char *peername) {
  struct ifinfomsg i = {.ifi_flags = fl & V_UP ? IFF_UP : 0, .ifi_change = fl & V_UP ? IFF_UP : 0};
  nl_new(m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &i, sizeof i);
  nl_attr(m, IFLA_IFNAME, name, strlen(name) + 1);
  uint32_t one = 1, grp = 77;
  if (fl & V_MASTER) nl_attr(m, IFLA_MASTER, &g_br, 4);
  if (fl & V_1Q) { nl_attr(m, IFLA_NUM_TX_QUEUES, &one, 4); nl_attr(m, IFLA_NUM_RX_QUEUES, &one, 4); }
  if (fl & V_GROUP) nl_attr(m, IFLA_GROUP, &grp, 4);
  struct rtattr *li = nl_attr(m, IFLA_LINKINFO, NULL, 0);
  nl_attr(m, IFLA_INFO_KIND, kind, strlen(kind));
  struct rtattr *d = nl_attr(m, IFLA_INFO_DATA, NULL, 0);
  // IFF_UP for the peer is not possible here: veth_open() of the peer runs before the two ends are linked -> ENOTCONN
  struct ifinfomsg pi = {.ifi_index = nsfd >= 0 ? 2 : 0};
  struct rtattr *pa = nl_attr(m, VETH_INFO_PEER, &pi, sizeof pi);
  nl_attr(m, IFLA_IFNAME, peername, strlen(peername) + 1);
  if (fl & V_1Q) { nl_attr(m, IFLA_NUM_TX_QUEUES, &one, 4); nl_attr(m, IFLA_NUM_RX_QUEUES, &one, 4); }
  if (nsfd >= 0) nl_attr(m, IFLA_NET_NS_FD, &nsfd, 4);
  nl_end_nest(m, pa);
  nl_end_nest(m, d);
  nl_end_nest(m, li);
  nl_fin(m);
}
static int g_no6;  // LIMIT_NO6=1: no IPv6 in pods nor on host ends (no DAD, MLD, RS floods through the bridge)
static int netns_new(int *sock) {  // new netns + a netlink socket in it, no fork, back in the outer ns at return
  CK(unshare(CLONE_NEWNET));
  if (g_no6) put("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
  int fd = CK(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (sock) *sock = nl_sock();
  CK(setns(g_hostns, CLONE_NEWNET));
  return fd;
}
static uint32_t ip_of(int k) { return (10u << 24 | 89u << 16 | 128u << 8) + 2 + (k % 30000); }
#define GW (10u << 24 | 89u << 16 | 128u << 8 | 1)
typedef struct { int fd; int k; uint64_t t_ns, t_veth, t_cfg; } podnet;
static int g_k = 0;
static int g_vfl = V_UP | V_MASTER;
static void podnet_up(podnet *p) {
  nlb m = {0};
  int s;
  uint64_t t0 = now();
  p->k = g_k++;
  p->fd = netns_new(&s);
  uint64_t t1 = now();
  char n[16];
  snprintf(n, sizeof n, "lbv%d", p->k);
  veth_msg(&m, n, p->fd, g_vfl, "veth", "eth0");
  nlck(nl_go(g_nl, &m), "veth");
  uint64_t t2 = now();
  link_up(&m, 1);
  link_up(&m, 2);
  addr_add(&m, 2, ip_of(p->k), 17);
  route_def(&m, 2, GW);
  nlck(nl_go(s, &m), "pod cfg");
  close(s);
  uint64_t t3 = now();
  p->t_ns = t1 - t0; p->t_veth = t2 - t1; p->t_cfg = t3 - t2;
}
static int count_veth(void) {
  nlb m = {0};
  struct ifinfomsg i = {0};
  nl_new(&m, RTM_GETLINK, NLM_F_DUMP, &i, sizeof i);
  nl_fin(&m);
  int s = nl_sock(), cnt = 0;
  send(s, m.b, m.len, 0);
  static char r[65536];
  for (;;) {
    int n = recv(s, r, sizeof r, 0);
    if (n < 0) die("recv");
    for (struct nlmsghdr *h = (void *)r; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
      if (h->nlmsg_type == NLMSG_DONE) { close(s); return cnt; }
      if (h->nlmsg_type != RTM_NEWLINK) continue;
      struct ifinfomsg *f = NLMSG_DATA(h);
      int al = IFLA_PAYLOAD(h);
      for (struct rtattr *a = IFLA_RTA(f); RTA_OK(a, al); a = RTA_NEXT(a, al))
        if (a->rta_type == IFLA_IFNAME && !strncmp(RTA_DATA(a), "lbv", 3)) cnt++;
    }
  }
}
static void wait_veths(int want) { while (count_veth() > want) usleep(500); }

static void net_init(void) {
  CK(unshare(CLONE_NEWNET));
  g_no6 = getenv("LIMIT_NO6") && *getenv("LIMIT_NO6") == '1';
  if (g_no6) put("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
  g_hostns = CK(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  g_nl = nl_sock();
  nlb m = {0};
  link_up(&m, 1);
  struct ifinfomsg i = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP};
  nl_new(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &i, sizeof i);
  nl_attr(&m, IFLA_IFNAME, "lbbr0", 6);
  struct rtattr *li = nl_attr(&m, IFLA_LINKINFO, NULL, 0);
  nl_attr(&m, IFLA_INFO_KIND, "bridge", 6);
  nl_end_nest(&m, li);
  nl_fin(&m);
  nlck(nl_go(g_nl, &m), "bridge");
  g_br = if_nametoindex("lbbr0");
  addr_add(&m, g_br, GW, 17);
  nlck(nl_go(g_nl, &m), "bridge addr");
}

// ---------------------------------------------------------------- 4. cgroups
// v1: three hierarchies, each joined by its tasks file; v2: the one that there is.
#define CGR "/sys/fs/cgroup"
static const char *V1[] = {"memory", "cpu", "pids"}, *V2[] = {""};
static const char **g_hier = V1;
static int g_nhier = 3;
static const char *g_join = "tasks";
static void cg_path(char *o, int n, const char *h, int id, const char *f) {
  if (id < 0) snprintf(o, n, CGR "%s%s/limitbench%s%s", *h ? "/" : "", h, f ? "/" : "", f ? f : "");
  else snprintf(o, n, CGR "%s%s/limitbench/p%d%s%s", *h ? "/" : "", h, id, f ? "/" : "", f ? f : "");
}
static void rmdir_retry(const char *p) {
  for (int i = 0; i < 2000; i++) { if (!rmdir(p)) return; if (errno == ENOENT) return; if (errno != EBUSY) break; usleep(500); }
  fprintf(stderr, "rmdir %s: %s\n", p, strerror(errno));
}
static void cg_init(void) {
  char p[200];
  if (!access(CGR "/cgroup.controllers", F_OK)) { g_hier = V2; g_nhier = 1; g_join = "cgroup.procs"; }
  for (int i = 0; i < g_nhier; i++) { cg_path(p, sizeof p, g_hier[i], -1, NULL); if (mkdir(p, 0755) && errno != EEXIST) die("mkdir %s", p); }
  if (g_hier == V2) { cg_path(p, sizeof p, V2[0], -1, "cgroup.subtree_control"); put(p, "+memory +cpu +pids"); }
}
static void cg_fini(void) {
  char p[200];
  for (int i = 0; i < g_nhier; i++) { cg_path(p, sizeof p, g_hier[i], -1, NULL); rmdir_retry(p); }
}
static int g_cgid;

// ---------------------------------------------------------------- 5. exec join
typedef struct { int pidfd; int mode; pid_t target; char exe[64]; int nsfd[5]; } joinarg;
static int join_child(void *v) {
  joinarg *j = v;
  char *argv[] = {j->exe, NULL};
  execve(j->exe, argv, ENVP);
  _exit(98);
}
// server: blocked in recv on a unix seqpacket socket; on a request joins the container and runs true, answers the status
static void join_server(int s, joinarg j) {
  char b[64];
  for (;;) {
    int n = recv(s, b, sizeof b, 0);
    if (n <= 0) _exit(0);
    int st = 0;
    if (j.mode == 0) {  // fork, child: setns(pidfd, all) + fork + exec (pid ns needs a second fork)
      pid_t c = fork();
      if (!c) {
        CK(setns(j.pidfd, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS));
        pid_t d = vfork();
        if (!d) join_child(&j);
        waitpid(d, &st, 0);
        _exit(WEXITSTATUS(st));
      }
      waitpid(c, &st, 0);
    } else if (j.mode == 1) {  // helper sets its pid_for_children once per request, vfork child joins the rest
      CK(setns(j.nsfd[0], CLONE_NEWPID));
      pid_t d = vfork();
      if (!d) {
        if (setns(j.pidfd, CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)) _exit(95);
        join_child(&j);
      }
      waitpid(d, &st, 0);
    } else if (j.mode == 2) {  // server already lives inside the container's namespaces
      pid_t d = vfork();
      if (!d) join_child(&j);
      waitpid(d, &st, 0);
    } else if (j.mode == 3) {  // pod infra: shares net, ipc, uts, pid; only the mount namespace is joined
      pid_t d = fork();
      if (!d) {
        if (setns(j.pidfd, CLONE_NEWNS)) _exit(95);
        join_child(&j);
      }
      waitpid(d, &st, 0);
    }
    if (!WIFEXITED(st) || WEXITSTATUS(st)) { fprintf(stderr, "join mode %d: status %x\n", j.mode, st); }
    b[0] = WEXITSTATUS(st);
    send(s, b, 1, 0);
  }
}
static uint64_t t_join(void *p) {
  int s = *(int *)p;
  char b = 'x';
  uint64_t t = now();
  CK(send(s, &b, 1, 0));
  if (recv(s, &b, 1, 0) != 1 || b) die("join reply %d", b);
  return now() - t;
}
static void join_tests(int n) {
  static char exe_bb[64] = "/bin/true", exe_tiny[64] = "/bin/tiny";
  ctr c = {.ns = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET, .cgns = true, .mode = M_CLASSIC, .exe = "/bin/tiny", .sleep = true, .vfork = true};
  int pidfd = -1;
  ov_prep();
  int myov = g_ovn;
  pid_t t = ctr_spawn(&c, &pidfd);
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/ns/pid", t);
  int pidns = CK(open(path, O_RDONLY | O_CLOEXEC));
  int sk[8]; pid_t pids[8]; int k = 0;
  for (int e = 0; e < 2; e++)
    for (int mode = 0; mode < 4; mode++) {
      int sv[2];
      CK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
      pid_t s = fork();
      if (!s) {
        close(sv[0]);
        for (int i = 0; i < k; i++) close(sk[i]);
        joinarg j = {.pidfd = pidfd, .mode = mode, .target = t, .nsfd = {pidns}};
        strcpy(j.exe, e ? exe_tiny : exe_bb);
        if (mode == 2) {
          CK(setns(pidfd, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS));
          pid_t q = fork();
          if (q) { close(sv[1]); int st; waitpid(q, &st, 0); _exit(0); }
        } else if (mode == 3) {
          CK(setns(pidfd, CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS));
          pid_t q = fork();
          if (q) { close(sv[1]); int st; waitpid(q, &st, 0); _exit(0); }
        }
        join_server(sv[1], j);
      }
      close(sv[1]);
      sk[k] = sv[0]; pids[k] = s; k++;
    }
  GROUP(n, {"exec", t_join, &sk[1]});
  for (int i = 0; i < k; i++) close(sk[i]);
  for (int i = 0; i < k; i++) { int st; waitpid(pids[i], &st, 0); }
  kill(t, SIGKILL);
  int st;
  waitpid(t, &st, 0);
  ov_clean(myov);
  close(pidfd); close(pidns);
}

// ---------------------------------------------------------------- 6. pod start
enum { N_NONE, N_COLD, N_POOL };
typedef struct { int net; bool infra, cg, full, vfork, chroot_only; int mode; const char *exe; bool cgpool; } podopt;
static podnet g_pool[1024];
static int g_npool;
static uint64_t g_stop_ns;  // stop duration of the last t_pod
static uint64_t g_step[5];   // its steps: cgroup mkdir, network, infra spawn, container clone call, until exec
static uint64_t t_pod(void *p) {
  podopt o = *(podopt *)p;
  podnet pn = {.fd = -1};
  if (o.net == N_POOL) {
    if (!g_npool) podnet_up(&g_pool[g_npool++]);
  }
  int id = g_cgid++;
  char d[3][200], f[3][220];
  ctr c = {.ns = CLONE_NEWNS | CLONE_NEWPID, .cgns = true, .mode = o.mode, .full = o.full, .exe = o.exe, .sleep = true, .vfork = o.vfork, .chroot_only = o.chroot_only};
  for (int h = 0; h < g_nhier && o.cg; h++) { cg_path(d[h], 200, g_hier[h], id, NULL); cg_path(f[h], 220, g_hier[h], id, g_join); c.cg[h] = f[h]; }
  ov_prep();
  if (o.mode == M_PREASM) c.pre_ov = preassemble(o.full);
  if (o.cg && o.cgpool) for (int h = 0; h < g_nhier; h++) CK(mkdir(d[h], 0755));
  usleep(2000);
  uint64_t t = now();
  if (o.cg) { if (!o.cgpool) for (int h = 0; h < g_nhier; h++) CK(mkdir(d[h], 0755)); c.ncg = g_nhier; }
  g_step[0] = now();
  if (o.net == N_COLD) podnet_up(&pn);
  else if (o.net == N_POOL) pn = g_pool[--g_npool];
  if (pn.fd >= 0) c.netfd = pn.fd;
  g_step[1] = now();
  pid_t inf = 0;
  int infd = -1;
  if (o.infra) {
    ctr i = {.ns = CLONE_NEWUTS | CLONE_NEWIPC, .mode = M_NONE, .exe = HOST_TINY, .sleep = true, .vfork = true, .netfd = c.netfd, .ncg = c.ncg};
    memcpy(i.cg, c.cg, sizeof i.cg);
    inf = ctr_spawn(&i, &infd);
    c.netfd = 0;
    c.ipcfd = 0;
    // join net+ipc+uts of the infra process with one setns(pidfd)
  } else c.ns |= CLONE_NEWUTS | CLONE_NEWIPC;
  pid_t k;
  int pp[2];
  g_step[2] = now();
  if (o.infra) {
    // one setns(pidfd) in the child: emulate by opening the two ns files is slower; use pidfd
    c.netfd = -infd;  // marker, handled below
  }
  CK(pipe2(pp, O_CLOEXEC));
  if (o.vfork && !o.infra) {
    k = ctr_spawn(&c, NULL);
    close(pp[1]);
  } else {
    k = sys_clone3(c.ns, NULL, -1);
    if (k < 0) die("clone3");
    if (!k) {
      if (o.infra) { CK(setns(infd, CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)); c.netfd = 0; }
      _exit(ctr_child(&c));
    }
    close(pp[1]);
  }
  g_step[3] = now();
  char x;
  if (read(pp[0], &x, 1) != 0) die("pipe");  // EOF = exec happened
  g_step[4] = now();
  for (int i = 4; i > 0; i--) g_step[i] -= g_step[i - 1];
  g_step[0] -= t;
  t = now() - t;
  close(pp[0]);
  if (o.mode == M_PREASM) close(c.pre_ov);
  // stop
  uint64_t s = now();
  kill(k, SIGKILL);
  int st;
  CK(waitpid(k, &st, 0));
  if (WIFEXITED(st)) { fprintf(stderr, "pod exited %x\n", st); _exit(95); }
  if (inf) { kill(inf, SIGKILL); CK(waitpid(inf, &st, 0)); close(infd); }
  if (o.cg) for (int h = 0; h < g_nhier; h++) rmdir_retry(d[h]);
  if (pn.fd >= 0) close(pn.fd);
  g_stop_ns = now() - s;
  ov_clean(g_ovn);
  return t;
}
static uint64_t t_pod_settled(void *p) {  // the network before is gone, so that its end is not in the figure
  wait_veths(g_npool);
  return t_pod(p);
}
static void pod_tests(int n) {
  static podopt cold = {.net = N_COLD, .cg = true, .mode = M_CLASSIC, .full = true, .infra = true, .exe = "/bin/sleep"};
  static podopt pool = {.net = N_POOL, .cg = true, .mode = M_CLASSIC, .full = true, .infra = true, .exe = "/bin/sleep"};
  static podopt all = {.net = N_POOL, .cg = true, .cgpool = true, .mode = M_PREASM, .full = true, .infra = true, .exe = "/bin/sleep"};
  uint64_t *stops = calloc(n, 8), *starts = calloc(n, 8);
  t_pod(&cold);
  for (int i = 0; i < n; i++) { wait_veths(g_npool); starts[i] = t_pod(&cold); stops[i] = g_stop_ns; }
  report("start cold", starts, n);
  report("stop", stops, n);
  if (can_preassemble()) GROUP(n, {"start pooled", t_pod_settled, &pool}, {"start all ahead", t_pod_settled, &all});
  else GROUP(n, {"start pooled", t_pod_settled, &pool});
  while (g_npool) close(g_pool[--g_npool].fd);
  wait_veths(0);
  free(stops); free(starts);
}
// ---------------------------------------------------------------- 7. log copy
typedef struct { int rd; int mode; const char *dst; int wr; int psz; } logopt;
enum { L_RW, L_SPLICE, L_CRI, L_NULL };
static size_t g_lines;  // bytes of the file `lines`
static size_t lines_size(void) {
  char path[340];
  struct stat st;
  snprintf(path, sizeof path, "%s/lines", W);
  if (stat(path, &st)) die("%s", path);
  return st.st_size;
}
static uint64_t t_log(void *p) {
  logopt *o = p;
  int pp[2];
  CK(pipe2(pp, O_CLOEXEC));
  if (o->psz) CK(fcntl(pp[1], F_SETPIPE_SZ, o->psz));
  char path[340];
  snprintf(path, sizeof path, "%s/log.out", o->dst);
  int out = CK(open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600));
  uint64_t t = now();
  pid_t c = fork();
  if (!c) {
    static char b[65536];
    memset(b, 'x', sizeof b);
    for (size_t i = 99; i < sizeof b; i += 100) b[i] = '\n';
    size_t left = g_lines, unit = o->wr > 65500 ? 65500 : o->wr;
    while (left) { ssize_t w = write(pp[1], b, left < unit ? left : unit); if (w < 0) _exit(1); left -= w; }
    _exit(0);
  }
  close(pp[1]);
  static char buf[1 << 20], ob[2 << 20];
  size_t tot = 0;
  if (o->mode == L_SPLICE) {
    for (;;) { ssize_t r = splice(pp[0], NULL, out, NULL, 1 << 20, SPLICE_F_MOVE | SPLICE_F_MORE); if (r < 0) die("splice"); if (!r) break; tot += r; }
  } else if (o->mode == L_RW || o->mode == L_NULL) {
    for (;;) { ssize_t r = read(pp[0], buf, o->rd); if (r < 0) die("read"); if (!r) break; tot += r; if (o->mode == L_RW && write(out, buf, r) != r) die("write"); }
  } else {  // CRI format: "<rfc3339nano> stdout F <line>\n", one timestamp per read
    size_t keep = 0;
    for (;;) {
      ssize_t r = read(pp[0], buf + keep, o->rd);
      if (r < 0) die("read");
      if (!r) break;
      tot += r;
      size_t end = keep + r, pos = 0, ol = 0;
      char ts[64];
      struct timespec tn;
      clock_gettime(CLOCK_REALTIME, &tn);
      struct tm tmv;
      gmtime_r(&tn.tv_sec, &tmv);
      int tl = strftime(ts, sizeof ts, "%Y-%m-%dT%H:%M:%S", &tmv);
      tl += sprintf(ts + tl, ".%09ldZ stdout F ", tn.tv_nsec);
      char *nl;
      while ((nl = memchr(buf + pos, '\n', end - pos))) {
        size_t l = nl - (buf + pos) + 1;
        memcpy(ob + ol, ts, tl);
        memcpy(ob + ol + tl, buf + pos, l);
        ol += tl + l;
        pos += l;
      }
      if (ol && write(out, ob, ol) != (ssize_t)ol) die("write");
      keep = end - pos;
      memmove(buf, buf + pos, keep);
    }
  }
  wait_ok(c);
  t = now() - t;
  if (tot != g_lines) die("short log %zu", tot);
  close(pp[0]);
  close(out);
  unlink(path);
  return t;
}
static void log_tests(int n) {
  static logopt o;
  o = (logopt){1 << 19, L_CRI, W, 65500, 1 << 20};
  g_lines = lines_size();
  GROUP(n, {"logs", t_log, &o});
}

// ---------------------------------------------------------------- 8. streams
// The lines by a pipe from or to a program, and by a connection over loopback; what takes or gives them does so in pieces of 32 KiB, as
// clients of Kubernetes do.
typedef struct { const char *argv[8]; const char *give; } program;
static char g_piece[32768];
static size_t drain(int fd) {
  size_t all = 0;
  for (;;) { ssize_t r = CK(read(fd, g_piece, sizeof g_piece)); if (!r) return all; all += r; }
}
static uint64_t t_program(void *p) {
  program *o = p;
  char busybox[320];
  snprintf(busybox, sizeof busybox, "%s/bin/busybox", LOWER);
  int pp[2];
  CK(pipe2(pp, O_CLOEXEC));
  int theirs = o->give ? 0 : 1;
  uint64_t t = now();
  pid_t c = CK(fork());
  if (!c) {
    CK(dup2(pp[theirs], theirs));
    execve(busybox, (char *const *)o->argv, ENVP);
    die("exec %s", busybox);
  }
  close(pp[theirs]);
  if (o->give) {
    int f = CK(open(o->give, O_RDONLY | O_CLOEXEC));
    for (;;) { ssize_t r = CK(read(f, g_piece, sizeof g_piece)); if (!r) break; if (write(pp[1], g_piece, r) != r) die("write"); }
    close(f);
  } else if (drain(pp[0]) < g_lines) die("short");
  close(pp[!theirs]);
  wait_ok(c);
  return now() - t;
}
static uint64_t t_tcp(void *p) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof at;
  int l = CK(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  CK(bind(l, (struct sockaddr *)&at, length));
  CK(getsockname(l, (struct sockaddr *)&at, &length));
  CK(listen(l, 1));
  uint64_t t = now();
  pid_t c = CK(fork());
  if (!c) {
    int s = CK(accept(l, NULL, NULL)), f = CK(open(p, O_RDONLY | O_CLOEXEC));
    for (size_t left = g_lines; left;) left -= CK(sendfile(s, f, NULL, left));
    _exit(0);
  }
  int s = CK(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  CK(connect(s, (struct sockaddr *)&at, sizeof at));
  if (drain(s) < g_lines) die("short");
  wait_ok(c);
  t = now() - t;
  close(s);
  close(l);
  return t;
}
static void stream_tests(int n) {
  static char lines[340], archive[340], out[340], unpacked[360];
  snprintf(lines, sizeof lines, "%s/lines", W);
  snprintf(archive, sizeof archive, "%s/lines.tar", W);
  snprintf(out, sizeof out, "%s/out", W);
  snprintf(unpacked, sizeof unpacked, "%s/lines", out);
  g_lines = lines_size();
  if (mkdir(out, 0755) && errno != EEXIST) die("mkdir %s", out);
  static program cat = {.argv = {"cat", lines}}, pack = {.argv = {"tar", "chf", "-", "-C", W, "lines"}};
  static program unpack = {.argv = {"tar", "xmf", "-", "-C", out}, .give = archive};
  GROUP(n, {"cat", t_program, &cat}, {"tcp", t_tcp, lines}, {"tar out", t_program, &pack}, {"tar in", t_program, &unpack});
  unlink(unpacked);
  rmdir(out);
}

// ---------------------------------------------------------------- main
int main(int argc, char **argv) {
  if (argc != 4) { fprintf(stderr, "usage: floor WORKDIR pod|exec|logs|streams N\n"); return 2; }
  if (!realpath(argv[1], W)) die("workdir");
  int n = atoi(argv[3]);
  struct rlimit rl = {65536, 65536};
  setrlimit(RLIMIT_NOFILE, &rl);
  snprintf(LOWER, sizeof LOWER, "%s/lower", W);
  snprintf(MERGED, sizeof MERGED, "%s/merged", W);
  snprintf(HOST_TINY, sizeof HOST_TINY, "%s/tiny", W);
  CK(unshare(CLONE_NEWNS | CLONE_NEWNET));
  CK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
  mkdir(MERGED, 0755);
  char d[400];
  snprintf(d, sizeof d, "%s/ov", W); mkdir(d, 0755);
  net_init();
  // keep one sysfs superblock of this network namespace alive, as /sys of a host would
  snprintf(d, sizeof d, "%s/sysfs", W); mkdir(d, 0755);
  CK(mount("sysfs", d, "sysfs", 0, NULL));
  cg_init();
  if (!strcmp(argv[2], "pod")) pod_tests(n);
  if (!strcmp(argv[2], "exec")) join_tests(n);
  if (!strcmp(argv[2], "logs")) log_tests(n);
  if (!strcmp(argv[2], "streams")) stream_tests(n);
  cg_fini();
  return 0;
}
