//! Giving up what serving requests does not need. In this order, each step verified at the end:
//!
//! 1. nothing that is started later can gain anything (`no_new_privs`);
//! 2. if another user is to be: supplementary groups, group, user; the capability bounding set is emptied before, while we
//!    may;
//! 3. whoever is not root has no capability left, not even the one that opened a low port;
//! 4. no core file and no debugger of the same user: keys of certificates are in our memory.
//!
//! It is done once, by a process with one thread, after the last socket is bound: capabilities belong to threads, and those
//! that come later inherit what this one has.

use std::ffi::CString;
use std::fmt;
use std::io;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Group, Uid, User, getgroups, getresgid, getresuid, initgroups, setgroups, setresgid, setresuid, setuid};

/// Who to be from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub uid: Uid,
    pub gid: Gid,
    /// `None`: the user database does not know it, so it is in no other group.
    name: Option<CString>,
}

#[derive(Debug)]
pub enum PrivilegeError {
    NoUser(String),
    NoGroup(String),
    /// A number that no user has, and no group was said.
    GroupUnknown(Uid),
    /// Only root may become somebody else.
    NotRoot {
        is: Uid,
        wanted: Uid,
    },
    Failed {
        what: &'static str,
        cause: io::Error,
    },
    /// The kernel said yes, and yet it is not so.
    Kept(String),
}

/// What holds from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub uid: Uid,
    pub gid: Gid,
}

impl Account {
    /// Names or numbers, as the configuration says them. Without a group, the user's own.
    pub fn find(user: &str, group: Option<&str>) -> Result<Self, PrivilegeError> {
        let look_up = |what| move |errno: Errno| failed(what, errno);
        let known = match user.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(user),
        };
        let known = known.map_err(look_up("looking the user up"))?;
        let uid = match (&known, user.parse()) {
            (Some(user), _) => user.uid,
            (None, Ok(uid)) => Uid::from_raw(uid),
            (None, Err(_)) => return Err(PrivilegeError::NoUser(user.to_owned())),
        };
        let gid = match group {
            None => known.as_ref().map(|user| user.gid).ok_or(PrivilegeError::GroupUnknown(uid))?,
            Some(group) => match (Group::from_name(group).map_err(look_up("looking the group up"))?, group.parse()) {
                (Some(group), _) => group.gid,
                (None, Ok(gid)) => Gid::from_raw(gid),
                (None, Err(_)) => return Err(PrivilegeError::NoGroup(group.to_owned())),
            },
        };
        Ok(Self { uid, gid, name: known.and_then(|user| CString::new(user.name).ok()) })
    }
}

/// See the module: after this there is no way back.
pub fn give_up(account: Option<&Account>, core_dumps: bool) -> Result<Standing, PrivilegeError> {
    prctl::set_no_new_privs().map_err(|e| failed("setting no_new_privs", e))?;
    if let Some(account) = account.filter(|account| !is_already(account)) {
        become_another(account)?;
    }
    let is_root = Uid::effective().is_root();
    if !is_root && has_capabilities()? {
        set_no_capabilities().map_err(|cause| PrivilegeError::Failed { what: "giving up capabilities", cause })?;
    }
    // A change of user has set its own default, so this comes after it.
    prctl::set_dumpable(core_dumps).map_err(|e| failed("setting whether there are core files", e))?;
    if !is_root {
        verify(account)?;
    }
    Ok(Standing { uid: Uid::effective(), gid: Gid::effective() })
}

/// Nothing is to be changed, as for who was started by a process that has done all this.
fn is_already(account: &Account) -> bool {
    Uid::effective() == account.uid && Gid::effective() == account.gid && Uid::current() == account.uid
}

fn become_another(account: &Account) -> Result<(), PrivilegeError> {
    if !Uid::effective().is_root() {
        return Err(PrivilegeError::NotRoot { is: Uid::effective(), wanted: account.uid });
    }
    empty_bounding_set();
    match &account.name {
        Some(name) => initgroups(name, account.gid).map_err(|e| failed("setting the groups", e))?,
        None => setgroups(&[account.gid]).map_err(|e| failed("setting the groups", e))?,
    }
    let Account { uid, gid, .. } = *account;
    setresgid(gid, gid, gid).map_err(|e| failed("setting the group", e))?;
    setresuid(uid, uid, uid).map_err(|e| failed("setting the user", e))
}

fn verify(account: Option<&Account>) -> Result<(), PrivilegeError> {
    let kept = |what: String| Err(PrivilegeError::Kept(what));
    if let Some(account) = account {
        let users = getresuid().map_err(|e| failed("asking for the user", e))?;
        let groups = getresgid().map_err(|e| failed("asking for the group", e))?;
        if [users.real, users.effective, users.saved] != [account.uid; 3] {
            return kept(format!("the user is {users:?}"));
        }
        if [groups.real, groups.effective, groups.saved] != [account.gid; 3] {
            return kept(format!("the group is {groups:?}"));
        }
        let others = getgroups().map_err(|e| failed("asking for the groups", e))?;
        if !account.gid.as_raw().eq(&0) && others.contains(&Gid::from_raw(0)) {
            return kept("root's group is still one of ours".to_owned());
        }
        if !account.uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
            return kept("this process can become root again".to_owned());
        }
    }
    if has_capabilities()? { kept("capabilities are left".to_owned()) } else { Ok(()) }
}

/// Who has none, need not be allowed to give them up: a filter of system calls may well forbid that.
fn has_capabilities() -> Result<bool, PrivilegeError> {
    let sets = capabilities().map_err(|cause| PrivilegeError::Failed { what: "asking for capabilities", cause })?;
    Ok(sets.iter().any(|set| set.effective | set.permitted | set.inheritable != 0))
}

/// One half of the sets of `capget(2)` and `capset(2)`: 32 capabilities.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct CapabilitySet {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    /// 0: this thread.
    pid: i32,
}

/// The ambient set goes with the permitted one.
fn set_no_capabilities() -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let none = [CapabilitySet::default(); 2];
    // SAFETY: both have the layout that version 3 of the call asks for, and live until it returns; it writes to neither.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn capabilities() -> io::Result<[CapabilitySet; 2]> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut sets = [CapabilitySet::default(); 2];
    // SAFETY: both have the layout that version 3 of the call asks for, and are ours to be written.
    match unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) } {
        0 => Ok(sets),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Best effort: with `no_new_privs` and no capability the set bounds nothing any more.
fn empty_bounding_set() {
    for capability in 0..CAPABILITIES_MAX {
        // SAFETY: the call takes numbers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            // The kernel knows no more of them, or does not let us.
            return;
        }
    }
}

fn failed(what: &'static str, errno: Errno) -> PrivilegeError {
    PrivilegeError::Failed { what, cause: errno.into() }
}

impl fmt::Display for PrivilegeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUser(user) => write!(f, "process.user: there is no user {user:?} on this machine"),
            Self::NoGroup(group) => write!(f, "process.group: there is no group {group:?} on this machine"),
            Self::GroupUnknown(uid) => write!(f, "process.user: no user has the number {uid}, so process.group is needed too"),
            Self::NotRoot { is, wanted } => {
                write!(f, "process.user: only root can become user {wanted}, and this process was started by user {is}")
            }
            Self::Failed { what, cause } => write!(f, "privileges cannot be given up: {what}: {cause}"),
            Self::Kept(what) => write!(f, "privileges were given up, but {what}"),
        }
    }
}

impl std::error::Error for PrivilegeError {}

/// `_LINUX_CAPABILITY_VERSION_3`: 64 capabilities, in two halves.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const CAPABILITIES_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_name_and_by_number() {
        let root = Account::find("root", None).unwrap();
        assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 0));
        assert_eq!(Account::find("0", None).unwrap(), root);
        let other_group = Account::find("root", Some("4711")).unwrap();
        assert_eq!(other_group.gid.as_raw(), 4711);
        let stranger = Account::find("3999999999", Some("root")).unwrap();
        assert_eq!((stranger.uid.as_raw(), stranger.gid.as_raw(), stranger.name), (3_999_999_999, 0, None));
    }

    #[test]
    fn who_is_not_there_is_named() {
        let said = |user: &str, group: Option<&str>| Account::find(user, group).unwrap_err().to_string();
        assert!(said("no-such-user", None).contains("process.user: there is no user \"no-such-user\""));
        assert!(said("root", Some("no-such-group")).contains("process.group: there is no group \"no-such-group\""));
        assert!(said("3999999999", None).contains("process.group is needed too"));
    }
}
