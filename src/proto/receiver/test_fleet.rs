//! Members for tests: the tree `www`, its states and a table of hosts with these states.

use std::time::Duration;

use crate::id::{HostName, InstanceId, TreeName};
use crate::proto::members::Table;
use crate::units::Moment;
use crate::wire::message::{Hello, TreeState};

/// Time `ms` milliseconds after the start.
pub fn at(ms: u64) -> Moment {
    Moment(1_000_000_000) + Duration::from_millis(ms)
}

/// Name of the tree.
pub fn www() -> TreeName {
    TreeName::new("www").expect("legal")
}

/// Beacon of the host `name`.
pub fn hello(name: HostName, trees: Vec<TreeState>) -> Hello {
    let (heard, strangers, nonce, echoes, identity, shown) = Default::default();
    Hello {
        name,
        version: String::new(),
        trees,
        members: 1,
        heard,
        strangers,
        nonce,
        echoes,
        identity,
        shown,
        labels: None,
    }
}

/// Members 2.. with these states of their tree, heard at the start.
pub fn table(states: impl IntoIterator<Item = TreeState>) -> Table {
    let mut table = Table::default();
    for (n, state) in (2u8..).zip(states) {
        let name = HostName::new(&format!("web{n}")).expect("legal");
        table.on_hello(
            at(0),
            ([10, 0, 0, n], 5000).into(),
            InstanceId(n.into()),
            hello(name, vec![state]),
            true,
        );
    }

    table
}
