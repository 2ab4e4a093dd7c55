//! The host file: one TOML file with everything a host of the group needs, readable before use.
//!
//! Holds the texts of three files without their names: the reading host chooses paths and modes.

use std::path::Path;

use crate::cli::args::TreeAt;
use crate::config::{AUTHORIZED_KEYS, GROUP_KEY, HostConfig};
use crate::keys::{AuthorizedKeys, GroupKey};
use crate::spec::document::{Document, Section};
use crate::strict::Readers;
use crate::units::printable_path;
use crate::{Error, Result};

/// Default file name of the host file, beside the keys.
pub(super) const HOST_FILE: &str = "host.toml";
/// Default file name of the configuration.
const CONFIG: &str = "makuo.toml";
/// Version of the format.
const HOST_FILE_FORMAT: i64 = 1;
/// Every key of the file.
const HOST_FILE_KEYS: &[&str] = &["format", "authorized_keys", "group_key", "config"];

/// Texts of a host's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostFile {
    /// Keys that may deploy, audit and roll back.
    pub(super) authorized_keys: String,
    /// Group key.
    pub(super) group_key: String,
    /// Configuration of the host.
    pub(super) config: String,
}

impl HostFile {
    /// Formats the file. `name` is its name on the hosts.
    pub(super) fn to_text(&self, name: &str) -> String {
        let dir = "/etc/makuo";

        format!(
            "# Everything a host of this group needs. It holds a secret, the group key: \
             copy it with scp, show it to nobody.\n\
             # On each host, as root:  makuo init --host {name}\n\
             # That writes the three texts below into files of {dir}, and nothing else.\n\
             format = {HOST_FILE_FORMAT}\n\n\
             # {dir}/{AUTHORIZED_KEYS}: who may deploy, audit and roll back.\n\
             authorized_keys = {}\n\n\
             # {dir}/{GROUP_KEY}: seals every datagram; \
             the same on all hosts and on machines that run commands.\n\
             group_key = {}\n\n\
             # {dir}/{CONFIG}: the configuration of the host.\n\
             config = {}\n",
            block(&self.authorized_keys),
            block(&self.group_key),
            block(&self.config),
        )
    }

    /// Reads the file, which nobody else may be able to read or write, for a host with its
    /// configuration at `config`.
    pub(super) fn load(path: &Path, config: &Path) -> Result<Self> {
        Self::from_document(
            &Document::load_strictly(path, "host file", Readers::Owner)?,
            config,
        )
    }

    /// Parses `text` as a host file.
    pub(super) fn parse(text: &str, config: &Path) -> Result<Self> {
        Self::from_document(&Document::new(Path::new(HOST_FILE), text.into()), config)
    }

    fn from_document(document: &Document, config: &Path) -> Result<Self> {
        let mut top = document.top(HOST_FILE_KEYS)?;
        let format = top
            .take("format")
            .ok_or_else(|| top.wrong("this is no host file: it has no `format`"))?;
        format.number(
            HOST_FILE_FORMAT..=HOST_FILE_FORMAT,
            "1, the format that this version knows",
        )?;
        let file = Self {
            authorized_keys: text(&mut top, "authorized_keys", |text| {
                check_key_list(text, config)
            })?,
            group_key: text(&mut top, "group_key", check_group_key)?,
            config: text(&mut top, "config", |text| check_config(text, config))?,
        };

        top.finish().map(|()| file)
    }

    /// Explains the configuration at its destination.
    pub(super) fn explain(&self, config: &Path) -> Result<String> {
        HostConfig::parse(&self.config, config).map(|config| config.explain())
    }
}

/// Takes the text of `key`, which must pass `check`.
fn text(top: &mut Section, key: &str, check: impl Fn(&str) -> Result<()>) -> Result<String> {
    let field = top
        .take(key)
        .ok_or_else(|| top.wrong(&format!("this is no host file: it has no `{key}`")))?;
    let text = field.text()?.to_string();
    check(&text).map_err(|e| match e.hint_text() {
        Some(hint) => field.wrong(&e).hint(hint),
        None => field.wrong(&e),
    })?;
    Ok(text)
}

fn check_key_list(text: &str, config: &Path) -> Result<()> {
    let keys = AuthorizedKeys::parse(text.as_bytes(), &config.with_file_name(AUTHORIZED_KEYS))?;
    if keys.is_empty() {
        Err(Error::usage("no key is listed"))
    } else {
        Ok(())
    }
}

fn check_group_key(text: &str) -> Result<()> {
    let key = GroupKey::parse(text);
    key.map(drop).ok_or_else(|| {
        Error::usage("this is no group key").hint("`makuo keygen --group` makes one")
    })
}

/// The configuration must use the files that come with it.
fn check_config(text: &str, path: &Path) -> Result<()> {
    let config = HostConfig::parse(text, path)?;
    if config.trees.is_empty() {
        return Err(Error::usage("the configuration has no [[tree]]"));
    }

    let own_keys = config.authorized_keys == path.with_file_name(AUTHORIZED_KEYS);
    let own_group_key = config
        .network
        .group_keys
        .iter()
        .all(|key| *key == config.default_group_key());

    if !own_keys || !own_group_key || config.network.plain {
        let what = "the configuration has to use the keys that come with it";
        return Err(Error::usage(what).hint("take authorized_keys, group_key and plain out of it"));
    }

    Ok(())
}

/// TOML string for `text`, on several lines if possible.
fn block(text: &str) -> String {
    let is_plain = |c: char| !c.is_control() || c == '\n' || c == '\t';
    match !text.contains("'''") && !text.ends_with('\'') && text.chars().all(is_plain) {
        true => format!("'''\n{text}'''"),
        false => toml::Value::String(text.to_string()).to_string(),
    }
}

/// Configuration of a host with `trees`.
pub(super) fn config(trees: &[TreeAt]) -> Result<String> {
    let mut text = String::from("# See makuo.toml(5); `makuo check FILE` says what it means.\n");
    for tree in trees {
        let path = tree
            .path
            .to_str()
            .filter(|_| tree.path.is_absolute())
            .ok_or_else(|| {
                Error::usage(format!(
                    "{}={}: write the directory on the hosts, from / on",
                    tree.name,
                    printable_path(&tree.path)
                ))
                .hint("as in www=/var/www")
            })?;
        let path = toml::Value::String(path.to_string());
        text.push_str(&format!(
            "\n[[tree]]\nname = \"{}\"\npath = {path}\n",
            tree.name
        ));
    }

    // Errors in the trees are found here instead of on every host.
    HostConfig::parse(&text, Path::new("/etc/makuo/makuo.toml")).map(|_| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TreeName;
    use crate::keys::{FileSigner, Signer};

    const CONFIG_PATH: &str = "/etc/makuo/makuo.toml";

    fn trees(all: &[(&str, &str)]) -> Vec<TreeAt> {
        let one = |(name, path): &(&str, &str)| TreeAt {
            name: TreeName::new(name).expect("legal"),
            path: path.into(),
        };
        all.iter().map(one).collect()
    }

    fn file() -> HostFile {
        let key = FileSigner::from_seed([7; 32]);
        HostFile {
            authorized_keys: format!(
                "tree=\"www\",deploy,audit,rollback {} it's me\n",
                key.public()
            ),
            group_key: GroupKey::random().expect("random").to_text(),
            config: config(&trees(&[("www", "/var/www")])).expect("legal"),
        }
    }

    fn parse(text: &str) -> Result<HostFile> {
        HostFile::parse(text, Path::new(CONFIG_PATH))
    }

    #[test]
    fn it_comes_back_as_it_was_whatever_is_in_a_remark_or_a_path() {
        let mut file = file();
        assert_eq!(parse(&file.to_text("host.toml")).expect("legal"), file);
        file.authorized_keys = file.authorized_keys.replace("it's me\n", "''' \u{e9}'");
        file.config = config(&trees(&[
            ("www", "/srv/it's \"here\" \\ '''"),
            ("b", "/srv/b"),
        ]))
        .expect("legal");

        assert_eq!(parse(&file.to_text("host.toml")).expect("legal"), file);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let text = file().to_text("host.toml");
        let error_of = |text: &str| parse(text).expect_err(text).to_string();
        for (old, new, what) in [
            ("format = 1", "", "no `format`"),
            ("format = 1", "format = 2", "format"),
            ("format = 1", "format = 1\nmode = 1", "unknown key \"mode\""),
            (
                "format = 1",
                "format = 1\n\"../x\" = ''",
                "unknown key \"../x\"",
            ),
            (
                "group_key = '''",
                "group_key = '''x",
                "group_key: this is no group key",
            ),
            ("ssh-ed25519", "ssh-rsa", "authorized_keys: "),
            ("tree=\"www\",deploy", "tree=\"www\",root", "unknown option"),
            ("name = \"www\"", "name = \"../www\"", "config: "),
            ("path = \"/var/www\"", "path = \"/var/../etc\"", "config: "),
            (
                "[[tree]]",
                "authorized_keys = \"/tmp/keys\"\n[[tree]]",
                "has to use the keys that come with it",
            ),
            (
                "[[tree]]",
                "[network]\ngroup_key = \"/tmp/key\"\n[[tree]]",
                "has to use the keys that come with it",
            ),
            (
                "[[tree]]",
                "[network]\nplain = true\n[[tree]]",
                "has to use the keys that come with it",
            ),
            ("[[tree]]", "[trees]", "config: "),
        ] {
            assert!(text.contains(old), "{old}");
            let told = error_of(&text.replace(old, new));
            assert!(
                told.starts_with("host.toml:") && told.contains(what),
                "{what}: {told}"
            );
        }

        let none = file().authorized_keys;
        assert!(error_of(&text.replace(&none, "# nobody\n")).contains("no key is listed"));
        for key in HOST_FILE_KEYS {
            let without = text.replace(&format!("\n{key} = "), &format!("\n{key}s = "));
            assert!(
                error_of(&without).contains(&format!("it has no `{key}`")),
                "{key}"
            );
        }
    }

    #[test]
    fn a_tree_is_a_directory_on_the_hosts() {
        let error_of =
            |name: &str, path: &str| config(&trees(&[(name, path)])).expect_err(path).to_string();
        assert!(error_of("www", "site").contains("write the directory on the hosts"));
        assert!(error_of("www", "/").contains("cannot be a tree"));
        assert!(error_of("www", "/var/../x").contains(".."));
        assert!(config(&trees(&[("a", "/srv"), ("b", "/srv/b")])).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(
            text in "(format = 1\n)?([a-z_]{1,9} = ('''|\"|\\[)?[^\u{0}]{0,40}\n){0,5}",
            at: usize,
            bytes: Vec<u8>,
        ) {
            let _ = parse(&text);
            // A host file with a random splice.
            let mut whole = file().to_text("x").into_bytes();
            let at = at % whole.len();
            whole.splice(at..(at + bytes.len()).min(whole.len()), bytes);
            let _ = parse(&String::from_utf8_lossy(&whole));
        }
    }
}
