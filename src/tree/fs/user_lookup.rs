//! Users and groups of the host: looked up in this process, or in a helper process once this one
//! must not read /etc.
//!
//! The helper is this program, started again before the daemon confines itself. It answers lookups
//! of users and groups, nothing else, and ends with the daemon.

use std::ffi::CString;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, OnceLock};

use minicbor::{Decode, Encode};
use nix::Result;
use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::helper::{self, Frames};
use crate::sync::locked;
use crate::{Error, Kind};

/// Name of the helper process, by which it recognizes itself.
const LOOKUP_HELPER: &str = "makuo-names";
/// Frame limits of requests and answers: a name, or the groups of a user.
const LOOKUP_FRAMES: Frames = Frames {
    max: 1 << 20,
    word: None,
};

/// Socket to the helper process, if one runs.
static BESIDE: OnceLock<Mutex<UnixStream>> = OnceLock::new();

#[derive(Debug, Encode, Decode)]
enum LookupRequest {
    #[n(0)]
    UserId(#[n(0)] String),
    #[n(1)]
    GroupId(#[n(0)] String),
    #[n(2)]
    UserName(#[n(0)] u32),
    #[n(3)]
    GroupName(#[n(0)] u32),
    #[n(4)]
    GroupsOf(#[n(0)] u32),
}

#[derive(Debug, Default, PartialEq, Encode, Decode)]
struct LookupResponse {
    #[n(0)]
    name: Option<String>,
    #[n(1)]
    ids: Vec<u32>,
    #[n(2)]
    errno: Option<i32>,
}

/// Numeric id of the user `name`; `None` for an unknown user.
pub fn user_id(name: &str) -> Result<Option<u32>> {
    Ok(ask(&LookupRequest::UserId(name.into()))?
        .ids
        .first()
        .copied())
}

/// Numeric id of the group `name`; `None` for an unknown group.
pub fn group_id(name: &str) -> Result<Option<u32>> {
    Ok(ask(&LookupRequest::GroupId(name.into()))?
        .ids
        .first()
        .copied())
}

/// Name of the user `id`; `None` for an unknown user.
pub fn user_name(id: u32) -> Result<Option<String>> {
    Ok(ask(&LookupRequest::UserName(id))?.name)
}

/// Name of the group `id`; `None` for an unknown group.
pub fn group_name(id: u32) -> Result<Option<String>> {
    Ok(ask(&LookupRequest::GroupName(id))?.name)
}

/// Groups of the user `id`; empty for an unknown user.
pub fn groups_of(id: u32) -> Result<Vec<u32>> {
    Ok(ask(&LookupRequest::GroupsOf(id))?.ids)
}

/// Starts the helper; later lookups go there. The program has to call [`served`] first of all.
pub fn start() -> crate::Result<()> {
    let failed =
        |e| Error::new(Kind::Io, "cannot start the process that looks up users").because(e);
    let stream = helper::start(LOOKUP_HELPER).map_err(failed)?;
    // A running helper stays.
    let _ = BESIDE.set(Mutex::new(stream));
    Ok(())
}

/// Serves lookups if this process was started as the helper; returns whether it was.
pub fn served() -> bool {
    helper::served(LOOKUP_HELPER, serve)
}

fn serve(stream: &UnixStream) -> io::Result<()> {
    while let Some(question) = LOOKUP_FRAMES.read::<LookupRequest>(stream)? {
        LOOKUP_FRAMES.write(stream, &look_up(&question))?;
    }
    Ok(())
}

fn ask(question: &LookupRequest) -> Result<LookupResponse> {
    let answer = match BESIDE.get() {
        None => look_up(question),
        Some(stream) => {
            let stream = locked(stream);
            let answer = LOOKUP_FRAMES
                .write(&stream, question)
                .and_then(|()| LOOKUP_FRAMES.read(&stream));
            answer.ok().flatten().ok_or(Errno::EIO)?
        }
    };

    match answer.errno {
        Some(errno) => Err(Errno::from_raw(errno)),
        None => Ok(answer),
    }
}

fn look_up(question: &LookupRequest) -> LookupResponse {
    let id = |id: Option<u32>| LookupResponse {
        ids: id.into_iter().collect(),
        ..LookupResponse::default()
    };

    let name = |name| LookupResponse {
        name,
        ..LookupResponse::default()
    };

    let found = match question {
        LookupRequest::UserId(name) => {
            User::from_name(name).map(|user| id(user.map(|user| user.uid.as_raw())))
        }
        LookupRequest::GroupId(name) => {
            Group::from_name(name).map(|group| id(group.map(|group| group.gid.as_raw())))
        }
        LookupRequest::UserName(id) => {
            User::from_uid(Uid::from_raw(*id)).map(|user| name(user.map(|user| user.name)))
        }
        LookupRequest::GroupName(id) => {
            Group::from_gid(Gid::from_raw(*id)).map(|group| name(group.map(|group| group.name)))
        }
        LookupRequest::GroupsOf(id) => groups(*id).map(|ids| LookupResponse {
            ids,
            ..LookupResponse::default()
        }),
    };

    found.unwrap_or_else(|errno| LookupResponse {
        errno: Some(errno as i32),
        ..LookupResponse::default()
    })
}

fn groups(id: u32) -> Result<Vec<u32>> {
    let Some(user) = User::from_uid(Uid::from_raw(id))? else {
        return Ok(Vec::new());
    };

    let name = CString::new(user.name).map_err(|_| Errno::EINVAL)?;
    Ok(getgrouplist(&name, user.gid)?
        .into_iter()
        .map(Gid::as_raw)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_finds_what_this_one_finds() {
        let (mine, its) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || serve(&its));
        let questions = [
            LookupRequest::UserId("root".into()),
            LookupRequest::UserId("no-such-user-here".into()),
            LookupRequest::GroupId("root".into()),
            LookupRequest::UserName(0),
            LookupRequest::GroupName(0),
            LookupRequest::UserName(3_999_999_999),
            LookupRequest::GroupsOf(0),
        ];

        for question in questions {
            LOOKUP_FRAMES.write(&mine, &question).unwrap();
            let answer: LookupResponse = LOOKUP_FRAMES.read(&mine).unwrap().unwrap();
            assert_eq!(answer, look_up(&question), "{question:?}");
        }

        drop(mine);
        thread.join().unwrap().unwrap();
        assert_eq!(user_id("root"), Ok(Some(0)));
        assert_eq!(user_name(0).unwrap().as_deref(), Some("root"));

        assert!(groups_of(0).unwrap().contains(&0));
    }
}
