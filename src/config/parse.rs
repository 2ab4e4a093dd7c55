//! Parses the keys of the file into a [`HostConfig`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Component;

use super::*;
use crate::spec::document::{Document, Field, Section};
use crate::units::{parse_duration, printable, printable_path};

/// Every key of a configuration.
pub const CONFIG_KEYS: &[&str] = &[
    "name",
    "labels",
    "authorized_keys",
    "state_dir",
    "socket",
    "sandbox",
    "socket_group",
    "sender",
    "sender.key",
    "network",
    "network.interface",
    "network.peers",
    "network.multicast",
    "network.segment",
    "network.unicast_port",
    "network.group",
    "network.port",
    "network.ttl",
    "network.group_key",
    "network.plain",
    "network.strict_host_keys",
    "network.catch_up_rate",
    "console",
    "console.listen",
    "console.socket",
    "console.password",
    "console.remote",
    "console.tree",
    "metrics",
    "metrics.listen",
    "metrics.names",
    "tree",
    "tree.name",
    "tree.path",
    "tree.protect",
    "tree.max_delete",
    "tree.keep",
    "tree.max_age",
    "tree.require_signatures",
    "tree.catch_up",
    "tree.repair",
    "tree.repository",
    "tree.repository_ca",
    "tree.poll",
    "tree.swap",
    "tree.devices",
    "tree.follow_links",
    "tree.window",
    "tree.before",
    "tree.after",
    "tree.health",
    "tree.hook_timeout",
    "tree.health_timeout",
    "tree.health_interval",
    "tree.health_deadline",
];

/// Longest name of an interface on Linux, in bytes.
const MAX_INTERFACE: usize = 15;
/// Largest number of group keys: one that seals, and others during a change of keys.
const MAX_GROUP_KEYS: usize = 4;
/// Largest number of interfaces.
const MAX_INTERFACES: usize = 64;
/// Largest number of configured peers.
const MAX_PEER_NAMES: usize = 1000;
/// Largest number of names of the HTTP server, and the longest one in bytes.
const MAX_SERVER_NAMES: usize = 64;
const MAX_SERVER_NAME: usize = 253;
/// Largest number of releases to keep.
const MAX_KEEP: i64 = 10_000;
/// Largest number of signatures that a host may require; a release has no more.
const MAX_REQUIRED_SIGNATURES: i64 = 4;
/// Shortest interval between two checks for drift.
const MIN_REPAIR: Duration = Duration::from_secs(1);
/// Largest number of trees on a host.
const MAX_TREES: usize = 1000;
/// Largest number of windows of a tree.
const MAX_WINDOWS: usize = 64;
/// Longest path of a unix socket, in bytes.
const MAX_SOCKET: usize = 107;

/// Returns whether the top-level keys are those of a configuration.
pub(super) fn looks_like_config(mut top: Section) -> bool {
    [
        "labels",
        "authorized_keys",
        "state_dir",
        "socket",
        "sandbox",
        "sender",
        "network",
        "console",
        "metrics",
    ]
    .iter()
    .any(|k| top.has(k))
        || top.take("tree").is_some_and(|f| f.is_tables())
}

impl HostConfig {
    pub(crate) fn from_document(document: &Document) -> Result<Self> {
        let mut top = document.top(CONFIG_KEYS)?;
        let default = HostConfig::default();
        let sender_key = sender(top.section("sender")?)?;
        let console = console(top.section("console")?)?;
        let metrics = metrics(top.section("metrics")?)?;
        let name = top.take("name").map(|f| f.parse()).transpose()?;
        let labels = top
            .take("labels")
            .map_or(Ok(Labels::default()), read_labels)?;
        let beside = document.path.with_file_name(AUTHORIZED_KEYS);

        let authorized_keys = top
            .take("authorized_keys")
            .map_or(Ok(beside), |f| absolute(&f))?;
        let socket = top
            .take("socket")
            .map_or(Ok(default.socket), |f| read_socket(&f))?;
        let sandbox = top
            .take("sandbox")
            .map_or(Ok(Sandbox::default()), |f| read_sandbox(&f))?;

        let socket_group = top
            .take("socket_group")
            .map(|f| f.text().map(str::to_string))
            .transpose()?;
        let state = top
            .take("state_dir")
            .map(|f| absolute(&f).map(|path| (path, f.span())))
            .transpose()?;

        let network = network(top.section("network")?)?;
        let trees = trees(document, &mut top)?;
        top.finish()?;

        if let Some((dir, span)) = &state
            && let Some((tree, _)) = trees.iter().find(|(tree, _)| dir.starts_with(&tree.path))
        {
            let what = format!(
                "state_dir: {} is inside the tree {}, which would serve it",
                printable_path(dir),
                tree.name
            );
            return Err(document.wrong(span.clone(), &what));
        }

        Ok(HostConfig {
            path: document.path.clone(),
            name,
            labels,
            authorized_keys,
            state_dir: state.map(|(path, _)| path),
            socket,
            sandbox,
            socket_group,
            sender_key,
            console,
            metrics,
            network,
            trees: trees.into_iter().map(|(tree, _)| tree).collect(),
        })
    }
}

/// Reads `{ zone = "a" }`, whose keys are free.
fn read_labels(field: Field) -> Result<Labels> {
    let wrong = field.deferred();
    let mut labels = BTreeMap::new();
    for (key, label) in field.section()?.into_fields() {
        labels.insert(key, label.text()?.to_string());
    }
    Labels::new(labels).map_err(|e| wrong(&e))
}

fn read_signatures(field: &Field) -> Result<u8> {
    let wanted = format!("a number of signatures from 1 to {MAX_REQUIRED_SIGNATURES}");
    let number = field.number(1..=MAX_REQUIRED_SIGNATURES, &wanted)?;
    Ok(u8::try_from(number).unwrap_or(u8::MAX))
}

fn sender(mut section: Section) -> Result<Option<PathBuf>> {
    let key = section.take("key").map(|f| absolute(&f)).transpose()?;
    section.finish().map(|()| key)
}

fn console(mut section: Section) -> Result<ConsoleConfig> {
    let listen = section.take("listen").map(|f| {
        let listen = ConsoleListen::parse(f.text()?);
        listen.ok_or_else(|| {
            f.wrong("write an address with its port, as \"127.0.0.1:5000\", or \"off\"")
        })
    });

    let console = ConsoleConfig {
        listen: listen.transpose()?.unwrap_or_default(),
        socket: section
            .take("socket")
            .map(|f| read_socket(&f))
            .transpose()?,
        password: section.take("password").map(|f| absolute(&f)).transpose()?,
        remote: section.take("remote").map_or(Ok(false), |f| f.bool())?,
        trusts_owner: false,
        tree: section.take("tree").map(|f| f.parse()).transpose()?,
    };

    let reachable = console
        .check()
        .map_err(|why| section.wrong(&format!("console.listen: {why}")));
    section.finish()?;

    reachable.map(|()| console)
}

fn metrics(mut section: Section) -> Result<MetricsConfig> {
    let listen = section.take("listen").map(|f| {
        let address = f.text()?.parse();
        address.map_err(|_| f.wrong("write an address with its port, as \"127.0.0.1:9108\""))
    });
    let listen = listen.transpose()?;
    let names = section.take("names").map(server_names).transpose()?;
    let unused = section.wrong("names without `listen`: there is no server");
    section.finish()?;

    match (&listen, &names) {
        (None, Some(_)) => Err(unused),
        _ => Ok(MetricsConfig {
            listen,
            names: names.unwrap_or_default(),
        }),
    }
}

/// One name or a list.
fn server_names(field: Field) -> Result<Vec<String>> {
    if field.is_text() {
        return read_server_name(&field).map(|one| vec![one]);
    }

    let many = field.wrong("too many names");
    let list = field.list("a name, as \"web1.example\", or a list of them")?;
    match list.len() {
        0..=MAX_SERVER_NAMES => list.iter().map(read_server_name).collect(),
        _ => Err(many),
    }
}

fn read_server_name(field: &Field) -> Result<String> {
    let text = field.text()?;
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match !text.is_empty() && text.len() <= MAX_SERVER_NAME && text.chars().all(is_legal) {
        true => Ok(text.to_string()),
        false => Err(field.wrong(format!(
            "{:?} is no name of a host: write it without port, as \"web1.example\"",
            printable(text.as_bytes())
        ))),
    }
}

fn network(mut section: Section) -> Result<NetworkConfig> {
    let default = NetworkConfig::default();
    let network = NetworkConfig {
        interfaces: section
            .take("interface")
            .map(interfaces)
            .transpose()?
            .unwrap_or_default(),
        peers: section
            .take("peers")
            .map(peers)
            .transpose()?
            .unwrap_or_default(),
        multicast: section.take("multicast").map_or(Ok(true), |f| f.bool())?,
        segment: section.take("segment").map(|f| f.parse()).transpose()?,
        unicast_port_given: section.has("unicast_port"),
        unicast_port: small(
            &mut section,
            "unicast_port",
            1..=65_535,
            "a port from 1 to 65535",
        )?
        .unwrap_or(default.unicast_port),
        group: section
            .take("group")
            .map_or(Ok(default.group), |f| read_group(&f))?,
        port: small(&mut section, "port", 1..=65_535, "a port from 1 to 65535")?
            .unwrap_or(default.port),
        ttl: small(&mut section, "ttl", 0..=255, "a number from 0 to 255")?.unwrap_or(default.ttl),
        group_keys: section
            .take("group_key")
            .map(group_keys)
            .transpose()?
            .unwrap_or_default(),
        plain: section.take("plain").map_or(Ok(false), |f| f.bool())?,
        strict_host_keys: section
            .take("strict_host_keys")
            .map_or(Ok(false), |f| f.bool())?,
        catch_up_rate: section
            .take("catch_up_rate")
            .map_or(Ok(default.catch_up_rate), |f| f.parse())?,
    };

    let both = section.wrong("plain = true leaves the group key unused: take one of the two out");
    let alone = section
        .wrong("multicast = false leaves no way to other hosts: name some in peers, as [\"web1\"]");
    let apart =
        section.wrong("multicast = false leaves the segment unused: take one of the two out");
    section.finish()?;

    if network.plain && !network.group_keys.is_empty() {
        return Err(both);
    }
    if !network.multicast && network.peers.is_empty() {
        return Err(alone);
    }
    if !network.multicast && network.segment.is_some() {
        return Err(apart);
    }

    Ok(network)
}

/// One peer or a list.
fn peers(field: Field) -> Result<Vec<PeerName>> {
    if field.is_text() {
        return field.parse().map(|one| vec![one]);
    }

    let empty = field.wrong("name a host, or leave it out");
    let many = field.wrong("too many peers: a few are enough, they know the others");
    let list = field.list("a host, as \"web1\", or a list of them")?;

    match list.len() {
        0 => Err(empty),
        1..=MAX_PEER_NAMES => list.iter().map(|peer| peer.parse()).collect(),
        _ => Err(many),
    }
}

fn small<T: TryFrom<i64>>(
    section: &mut Section,
    key: &str,
    range: std::ops::RangeInclusive<i64>,
    what: &str,
) -> Result<Option<T>> {
    let number = section
        .take(key)
        .map(|f| f.number(range, what))
        .transpose()?;
    Ok(number.and_then(|n| T::try_from(n).ok()))
}

/// One interface or a list.
fn interfaces(field: Field) -> Result<Vec<String>> {
    if field.is_text() {
        return read_interface(&field).map(|one| vec![one]);
    }

    let empty = field.wrong("name an interface, or leave it out");
    let many = field.wrong("too many interfaces");
    let list = field.list("an interface, as \"eth0\", or a list of them")?;

    match list.len() {
        0 => Err(empty),
        1..=MAX_INTERFACES => list.iter().map(read_interface).collect(),
        _ => Err(many),
    }
}

fn read_interface(field: &Field) -> Result<String> {
    let text = field.text()?;
    let is_name = !text.is_empty()
        && text.len() <= MAX_INTERFACE
        && !text.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
    if is_name || text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_string());
    }

    Err(field.wrong(format!(
        "{:?} is not an interface: write its name or address, as \"eth0\"",
        printable(text.as_bytes())
    )))
}

/// One path or a list: the first key seals, all open.
fn group_keys(field: Field) -> Result<Vec<PathBuf>> {
    if field.is_text() {
        return absolute(&field).map(|one| vec![one]);
    }

    let empty = field.wrong("name a file, or leave it out");
    let many = field.wrong("too many group keys");
    let list =
        field.list("a file, as \"/etc/makuo/group.key\", or a list of them, the new one first")?;

    match list.len() {
        0 => Err(empty),
        1..=MAX_GROUP_KEYS => list.iter().map(absolute).collect(),
        _ => Err(many),
    }
}

fn read_group(field: &Field) -> Result<IpAddr> {
    let text = field.text()?;
    text.parse::<IpAddr>()
        .ok()
        .filter(IpAddr::is_multicast)
        .ok_or_else(|| {
            let shown = printable(text.as_bytes());
            field.wrong(format!(
                "{shown:?} is not a multicast group: 224.0.0.0 to 239.255.255.255, or of ff00::/8"
            ))
        })
}

/// Trees with their positions in the file.
type PlacedTrees = Vec<(TreeConfig, Range<usize>)>;

fn trees(document: &Document, top: &mut Section) -> Result<PlacedTrees> {
    let Some(field) = top.take("tree") else {
        return Ok(Vec::new());
    };

    if !field.is_tables() {
        return Err(
            field.wrong("write each tree as a table of its own: [[tree]], then name and path")
        );
    }

    let too_many = field.wrong(format!("more than {MAX_TREES} trees"));
    let mut trees: PlacedTrees = Vec::new();
    for item in field.list("a list of tables")? {
        if trees.len() == MAX_TREES {
            return Err(too_many);
        }
        let span = item.span();
        let tree = read_tree(item.section()?)?;
        if let Some(clash) = trees.iter().find_map(|(other, _)| clash(other, &tree)) {
            return Err(document.wrong(span, &clash));
        }
        trees.push((tree, span));
    }

    Ok(trees)
}

/// Reason why two trees cannot be on one host.
fn clash(old: &TreeConfig, new: &TreeConfig) -> Option<String> {
    let name = &new.name;
    let path = printable_path(&new.path);
    let old_path = printable_path(&old.path);

    if old.name == *name {
        Some(format!("there are two trees {name}"))
    } else if old.path == new.path {
        Some(format!(
            "the trees {} and {name} are the same directory {path}",
            old.name
        ))
    } else if new.path.starts_with(&old.path) {
        Some(format!(
            "the tree {name} ({path}) is inside the tree {} ({})",
            old.name, old_path
        ))
    } else if old.path.starts_with(&new.path) {
        Some(format!(
            "the tree {} ({}) is inside the tree {name} ({path})",
            old.name, old_path
        ))
    } else {
        None
    }
}

fn read_tree(mut section: Section) -> Result<TreeConfig> {
    let name = section.take("name").map(|f| f.parse()).transpose()?;
    let path = section
        .take("path")
        .map(|f| read_tree_path(&f))
        .transpose()?;
    let patterns = section
        .take("protect")
        .map(crate::spec::patterns)
        .transpose()?
        .unwrap_or_default();

    let protect = PathFilter::at_top(&patterns);
    let max_delete = section
        .take("max_delete")
        .map(|f| f.parse_number_or_text())
        .transpose()?;
    let keep = small(
        &mut section,
        "keep",
        0..=MAX_KEEP,
        "a number of releases from 0 to 10000",
    )?;

    let require_signatures = section
        .take("require_signatures")
        .map_or(Ok(1), |f| read_signatures(&f))?;
    let max_age = section.take("max_age").map(|f| read_age(&f)).transpose()?;
    let repair = section
        .take("repair")
        .map(|f| read_interval(&f))
        .transpose()?;
    let hooks = hooks::hooks(&mut section)?;
    let flag = |section: &mut Section, key: &str, usual: bool| {
        section.take(key).map_or(Ok(usual), |f| f.bool())
    };

    let catch_up = section
        .take("catch_up")
        .map_or(Ok(CatchUp::default()), |f| read_catch_up(&f))?;
    let repository = read_repository(&mut section, name.as_ref(), catch_up)?;
    let swap = section.take("swap").map(|f| f.bool()).transpose()?;
    let devices = flag(&mut section, "devices", false)?;
    let follow_links = flag(&mut section, "follow_links", false)?;
    let window = section.take("window").map(read_window).transpose()?;
    let missing = |key: &str| {
        section
            .wrong(&format!("a [[tree]] without `{key}`"))
            .hint("a tree needs name and path")
    };

    let no_name = missing("name");
    let no_path = missing("path");
    section.finish()?;
    Ok(TreeConfig {
        name: name.ok_or(no_name)?,
        path: path.ok_or(no_path)?,
        protect,
        protect_patterns: patterns,
        max_delete,
        keep: keep.unwrap_or(DEFAULT_KEEP),
        max_age,
        require_signatures,
        catch_up,
        repair,
        repository,
        hooks,
        swap,
        devices,
        follow_links,
        window,
    })
}

/// One window or a list.
fn read_window(field: Field) -> Result<CommitWindow> {
    if field.is_text() {
        return CommitWindow::of([field.text()?]).map_err(|why| field.wrong(why));
    }

    let empty = field.wrong("name a time, or leave it out");
    let many = field.wrong("too many windows");
    let list = field.list("a window, as \"Mon-Fri 02:00-04:00\", or a list of them")?;
    if list.is_empty() {
        return Err(empty);
    }
    if list.len() > MAX_WINDOWS {
        return Err(many);
    }

    // One by one first, so that an error names its place.
    let mut texts = Vec::new();
    for item in &list {
        let text = item.text()?;
        CommitWindow::of([text]).map_err(|why| item.wrong(why))?;
        texts.push(text);
    }
    CommitWindow::of(texts).map_err(|_| many)
}

/// Repository of a tree. The daemon, which knows the stores, checks the URL.
fn read_repository(
    section: &mut Section,
    tree: Option<&TreeName>,
    catch_up: CatchUp,
) -> Result<Option<TreeRepository>> {
    let (poll, ca_file) = (section.take("poll"), section.take("repository_ca"));
    let interval = poll.as_ref().map(read_interval).transpose()?;
    let Some(field) = section.take("repository") else {
        let unused = |field: Field| field.wrong("it belongs to a repository, and there is none");
        return poll
            .or(ca_file)
            .map_or(Ok(None), |field| Err(unused(field)));
    };

    let url = field.text()?.to_string();
    if catch_up == CatchUp::Off {
        return Err(field.wrong("a tree takes releases only without catch_up = false"));
    }
    let tree = tree.map_or("", TreeName::as_str);
    Ok(Some(TreeRepository {
        url,
        ca_file: ca_file.as_ref().map(absolute).transpose()?,
        place: field.wrong(format_args!("tree {tree}")).to_string(),
        poll: interval.unwrap_or(DEFAULT_POLL),
    }))
}

fn read_catch_up(field: &Field) -> Result<CatchUp> {
    match field.is_text() {
        true if field.text()? == "anyone" => Ok(CatchUp::Anyone),
        true => Err(field.wrong("write true, false or \"anyone\"")),
        false => Ok(if field.bool()? {
            CatchUp::Group
        } else {
            CatchUp::Off
        }),
    }
}

/// Interval of checks, long enough not to dominate the host's work.
fn read_interval(field: &Field) -> Result<Duration> {
    let interval = parse_duration(field.text()?).map_err(|e| field.wrong(e))?;
    if interval < MIN_REPAIR {
        return Err(field.wrong("write at least \"1s\", or leave it out"));
    }
    Ok(interval)
}

/// Age in whole seconds, the resolution of a release's creation time.
fn read_age(field: &Field) -> Result<Duration> {
    let age = parse_duration(field.text()?).map_err(|e| field.wrong(e))?;
    if age < Duration::from_secs(1) {
        return Err(field.wrong("every release is older than that; write an age such as \"30d\""));
    }
    Ok(Duration::from_secs(age.as_secs()))
}

fn read_tree_path(field: &Field) -> Result<PathBuf> {
    let path = absolute(field)?;
    if path.parent().is_none() {
        return Err(field.wrong("the whole filesystem cannot be a tree; write a directory below /"));
    }
    Ok(path)
}

fn read_sandbox(field: &Field) -> Result<Sandbox> {
    match field.text()? {
        "require" => Ok(Sandbox::Require),
        "auto" => Ok(Sandbox::Auto),
        "off" => Ok(Sandbox::Off),
        other => {
            let shown = printable(other.as_bytes());
            Err(field.wrong(format!("{shown:?} is not \"auto\", \"require\" or \"off\"")))
        }
    }
}

fn read_socket(field: &Field) -> Result<PathBuf> {
    let path = absolute(field)?;
    if path.as_os_str().len() > MAX_SOCKET {
        return Err(field.wrong(format!(
            "the path of a socket has at most {MAX_SOCKET} bytes"
        )));
    }
    Ok(path)
}

/// Absolute path without `..`. Trailing and doubled slashes are removed, so that paths compare.
fn absolute(field: &Field) -> Result<PathBuf> {
    let text = field.text()?;
    let path = Path::new(text);
    if !path.is_absolute()
        || text.contains('\0')
        || path.components().any(|c| c == Component::ParentDir)
    {
        let shown = printable(text.as_bytes());
        return Err(field.wrong(format!(
            "{shown:?} is not an absolute path without \"..\", as in \"/var/www\""
        )));
    }

    Ok(path.components().collect())
}
