//! Tests of the pages: large fleets, and texts of hosts that mean harm.

use http::HeaderValue;

use super::*;
use crate::id::{HostName, Serial};
use crate::manifest::{ReleaseId, ReleaseMessage};
use crate::outcome::TreeStatus;
use crate::units::{ByteSize, WallTime};
use crate::wire::query::Trouble;

fn standing(host: &str, running: Option<u64>, newest: u64) -> Standing {
    let name = HostName::new(host).expect("legal");

    Standing {
        named: name.clone().into(),
        host: name,
        address: "127.0.0.1:5000".parse().expect("legal"),
        tree: TreeName::new("www").expect("legal"),
        labels: Default::default(),
        status: Some(TreeStatus {
            running: running.map(Serial),
            release: None,
            work: None,
            trouble: None,
            stale: None,
            drifted: None,
            repository: None,
            staged: None,
            held: None,
            unhealthy: false,
            sent: None,
            message: None,
        }),
        behind: running
            .filter(|serial| *serial < newest)
            .map(|_| Serial(newest)),
        tombstone: None,
        split: Vec::new(),
        stranded: false,
        lacks: None,
        lacks_parts: Vec::new(),
    }
}

fn failed(host: &str, text: &str) -> Standing {
    let mut standing = standing(host, Some(6), 7);
    let trouble = Trouble {
        serial: Serial(7),
        age: 60,
        text: text.into(),
    };
    standing.status.as_mut().expect("answered").trouble = Some(trouble);
    standing
}

#[test]
fn five_hundred_hosts_are_a_row_with_few_groups() {
    let current = (0..495).map(|n| standing(&format!("web{n}"), Some(7), 7));
    let behind = (0..3).map(|n| standing(&format!("old{n}"), Some(6), 7));
    let odd = [failed("bad1", "no space"), standing("new1", None, 7)];
    let mut all: Vec<Standing> = current.chain(behind).chain(odd).collect();
    all[3].status = None;

    let fleet = Fleet::of(all);
    let page = render::page("makuo", "", render::fleet(&fleet.view));
    for said in [
        "494 hosts current",
        "3 hosts behind",
        "1 host failed",
        "1 host silent",
        "1 host empty",
        "www@7",
    ] {
        assert!(page.contains(said), "{said}: {page}");
    }
    assert!(page.len() < 2500, "{} bytes", page.len());
    assert!(page.find("failed").expect("there") < page.find("behind").expect("there"));

    let one = render::page("x", "", render::tree(&fleet.view.trees[0], None));
    assert_eq!(one.matches("href=\"/host/").count(), 500);
    assert!(one.contains("newest is www@7") && one.contains("www@7: no space"));
}

#[test]
fn what_hosts_say_is_text_and_nothing_else() {
    let text = "<img src=x onerror=alert(1)>\"' & \u{202e}\n</main>";
    let mut fleet = Fleet::of(vec![failed("web1", text)]);
    let mut view = view::host("web1", &fleet.standings).expect("known");
    // Names are legal by their type; the pages do not rely on it.
    let name = "<b>'&\"%2F";
    view.host = name.into();
    view.trees[0].tree = name.into();
    fleet.view.trees[0].tree = name.into();
    fleet.view.trees[0].groups[0].hosts = vec![name.into()];

    let pages = [
        render::page("makuo", "", render::fleet(&fleet.view)),
        render::page("x", "<b>", render::tree(&fleet.view.trees[0], None)),
        render::page("<b>", "x", render::host(&view)),
    ];
    for page in pages {
        assert!(!page.contains("<img") && !page.contains("<b>'"), "{page}");
        assert!(!page.contains('\u{202e}'), "{page}");
        assert_eq!(page.matches("</main>").count(), 1, "{page}");
    }
}

#[test]
fn a_missing_release_is_named_as_by_the_command() {
    let reason = |change: fn(&mut Standing)| {
        let mut standing = standing("web1", Some(6), 7);
        change(&mut standing);
        let fleet = Fleet::of(vec![standing]);
        let group = &fleet.view.trees[0].groups[0];
        (group.state.word(), group.reason.clone().expect("a reason"))
    };

    assert_eq!(reason(|_| ()), ("behind", "behind: newest is www@7".into()));
    let (word, text) = reason(|s| s.stranded = true);
    assert_eq!(word, "behind");
    assert!(text.contains("no host keeps the whole tree"), "{text}");
    let (word, text) = reason(|s| s.lacks = Some(Serial(4)));
    assert_eq!(word, "incomplete");
    assert!(text.starts_with("lacks www@4, which its release"), "{text}");
    let (word, text) = reason(|s| s.lacks_parts = vec![Serial(3), Serial(5)]);
    assert_eq!(word, "incomplete");
    assert!(text.starts_with("lacks www@3, www@5, sent"), "{text}");
}

#[test]
fn groups_of_a_page_have_different_ids() {
    let failed = ["no space", "no rights", "no time"].map(|text| failed("web1", text));
    let fleet = Fleet::of(failed.to_vec());
    let page = render::page("x", "", render::tree(&fleet.view.trees[0], None));
    let ids = page.split("<details id=\"").skip(1);
    let ids: Vec<_> = ids.filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(ids, ["failed-6-0", "failed-6-1", "failed-6-2"]);
}

#[test]
fn the_state_of_a_fleet_has_one_identity() {
    let fleet = |serial| Fleet::of(vec![standing("web1", Some(serial), 7)]);
    assert_eq!(fleet(7).id, fleet(7).id);
    assert_ne!(fleet(7).id, fleet(6).id);
    let mut later = failed("web1", "x");
    let before = Fleet::of(vec![later.clone()]);
    later
        .status
        .as_mut()
        .expect("answered")
        .trouble
        .as_mut()
        .expect("set")
        .age = 61;

    assert_eq!(
        Fleet::of(vec![later]).id,
        before.id,
        "time alone is no change"
    );
    assert_eq!(
        fleet(7).json,
        "{\"hosts\":1,\"trees\":[{\"tree\":\"www\",\"newest\":7,\
        \"hosts\":1,\"groups\":[{\"state\":\"current\",\"serial\":7,\"reason\":null,\
        \"percent\":null,\"bytes_left\":null,\"hosts\":[\"web1\"]}]}]}"
    );
}

#[test]
fn a_release_is_shown_with_its_hosts() {
    let name = HostName::new("web1").expect("legal");
    let release = LogRelease {
        serial: Serial(7),
        id: ReleaseId(BlockHash::of(b"x")),
        tombstone: None,
        created: WallTime(0),
        key: Some("SHA256:abc".into()),
        entries: 3,
        bytes: ByteSize(3000),
        content: BlockHash::of(b"y"),
        part: false,
        targets: None,
        message: ReleaseMessage::new("fix <css>").ok(),
        running: vec![name.clone().into()],
        shown: Vec::new(),
        buried: Vec::new(),
        kept: vec![name.into()],
        pinned: Vec::new(),
    };

    let page = render::page("x", "", render::release("www", &[&release]));
    for said in [
        "www</a>@7",
        "SHA256:abc",
        "fix &lt;css&gt;",
        "1970-01-01",
        "Runs on 1 host",
        "/host/web1",
    ] {
        assert!(page.contains(said), "{said}: {page}");
    }
}

#[test]
fn json_is_for_those_who_ask_for_it_alone() {
    let of = |text: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(text) = text {
            headers.insert(header::ACCEPT, HeaderValue::from_static(text));
        }
        Form::of(&headers)
    };

    assert_eq!(of(Some("application/json")), Form::Json);
    assert_eq!(of(Some("Application/JSON; q=1")), Form::Json);
    for html in [
        None,
        Some("*/*"),
        Some("text/html,application/json"),
        Some(""),
    ] {
        assert_eq!(of(html), Form::Html, "{html:?}");
    }
}
