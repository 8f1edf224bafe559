#!/usr/bin/env bash
# Prints seccomp.json: what a container without capabilities may do by default, and the three calls of io_uring.
#
# It begins with the default profile of Podman and CRI-O, from Debian's package golang-github-containers-common
# (Apache-2.0, github.com/containers/common), and takes away what Docker's default (Apache-2.0, github.com/moby/profiles)
# allows no container without capabilities, so that it is no wider than either.
#
# The rules there have conditions: capabilities, architectures. containerd, and so most of Kubernetes, does not know
# conditions and would take every rule as it stands. So they are decided here, for x86-64 and 64-bit ARM.
set -euo pipefail

default=${KVLITE_SECCOMP_DEFAULT:-/usr/share/containers/seccomp.json}
[ -e "$default" ] || {
    echo "make-seccomp.sh: $default is missing: apt-get install golang-github-containers-common" >&2
    exit 1
}

jq '
    ["io_uring_enter", "io_uring_register", "io_uring_setup"] as $ring
    | ["fsconfig", "fsmount", "fsopen", "fspick", "get_mempolicy", "keyctl", "mbind", "mount", "mount_setattr",
       "move_mount", "open_tree", "pidfd_getfd", "pivot_root", "reboot", "set_mempolicy", "setns", "syslog", "umount",
       "umount2", "unshare"] as $privileged
    # clone without new namespaces. clone3 cannot be looked into; programs that find it missing (ENOSYS) use clone. That
    # is said of it alone, too, since Docker 20.10 does not know defaultErrnoRet.
    | [{names: ["clone"], action: "SCMP_ACT_ALLOW",
        args: [{index: 0, value: 2114060288, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ"}]},
       {names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: 38}] as $clone
    # Sockets of the usual families, and netlink but for the audit.
    | [{names: ["socket"], action: "SCMP_ACT_ALLOW", args: [{index: 0, value: 12, valueTwo: 0, op: "SCMP_CMP_LT"}]},
       {names: ["socket"], action: "SCMP_ACT_ALLOW", args: [{index: 0, value: 16, valueTwo: 0, op: "SCMP_CMP_EQ"},
           {index: 2, value: 9, valueTwo: 0, op: "SCMP_CMP_NE"}]}] as $sockets
    | def counts: (.includes.caps // []) == []
          and ((.includes.arches // ["amd64"]) | any(. == "amd64" or . == "arm64"));
    def rule: {names, action} + (if .errnoRet then {errnoRet} else {} end)
          + (if (.args // []) == [] then {} else {args} end);
    [.syscalls[] | select(counts) | rule
        | .names -= $ring + ["clone", "clone3", "socket"]
        | if .action == "SCMP_ACT_ALLOW" then .names -= $privileged else . end
        | select(.names != [])]
    | group_by(del(.names)) | map(.[0] + {names: (map(.names) | add | unique)})
    | sort_by(-(.names | length)) + $clone + $sockets + [{names: $ring, action: "SCMP_ACT_ALLOW"}]
    # ENOSYS, so that programs fall back to older calls.
    | {defaultAction: "SCMP_ACT_ERRNO", defaultErrnoRet: 38, syscalls: .}
' "$default"
