//! `makuo completions`: generated from the definitions that parse the command line.

use std::io::Write;
use std::path::Path;

use clap::{Arg, Command, CommandFactory, ValueHint};
use clap_complete::Shell;

use super::args::{Cli, Completed, CompletionsArgs};
use super::network;
use crate::Result;
use crate::daemon::{query_members, query_trees};

/// Prints the script, even with --json, because a shell reads it.
pub(super) fn run(args: &CompletionsArgs) -> Result<u8> {
    let mut script = Vec::new();
    let mut command = hinted(Cli::command());
    clap_complete::generate(args.shell, &mut command, "makuo", &mut script);
    match args.shell {
        Shell::Bash => script.extend_from_slice(BASH.as_bytes()),
        Shell::Fish => script.extend_from_slice(fish(&command).as_bytes()),
        _ => {}
    }

    // A closed pipe is not an error.
    let _ = std::io::stdout().write_all(&script);
    Ok(0)
}

/// Says of values without a hint that they are no files, which shells would list.
fn hinted(command: Command) -> Command {
    let hint = |arg: Arg| match arg.get_value_hint() {
        ValueHint::Unknown if arg.get_action().takes_values() => arg.value_hint(ValueHint::Other),
        _ => arg,
    };
    command.mut_args(hint).mut_subcommands(hinted)
}

/// Fish completions beyond flags: no files for commands that read none, and trees and hosts from
/// the daemon.
fn fish(command: &Command) -> String {
    let names: Vec<&str> = command
        .get_subcommands()
        .filter(|command| !reads_files(command))
        .map(Command::get_name)
        .collect();
    let of =
        |names: &str| format!("complete -c makuo -n \"__fish_makuo_using_subcommand {names}\"");
    let without = of(&names.join(" "));
    let trees = of(&TREE_COMMANDS.join(" "));
    let hosts = of("doctor");
    format!(
        "{without} -f\n{trees} -a \"(makuo complete trees 2>/dev/null)\"\n{hosts} -a \"(makuo \
         complete hosts 2>/dev/null)\"\n"
    )
}

/// Returns whether an argument of the command is a file or a directory.
fn reads_files(command: &Command) -> bool {
    let is_path = |arg: &Arg| {
        let hint = arg.get_value_hint();
        matches!(
            hint,
            ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath
        )
    };
    command.get_positionals().any(is_path) || command.get_subcommands().any(reads_files)
}

/// Commands whose first argument is a tree.
const TREE_COMMANDS: [&str; 6] = ["rollback", "log", "status", "show", "promote", "abort"];

/// Prints hosts or trees known to the local daemon, one a line; nothing without a daemon or access
/// to it.
pub(super) fn list_names(what: Completed, config: Option<&Path>) -> Result<u8> {
    let socket = network::host_config(config)?.socket;
    let members = query_members(&socket).unwrap_or_default();
    let mut names: Vec<String> = match what {
        Completed::Hosts => members.iter().map(|m| m.host.to_string()).collect(),
        Completed::Trees => {
            let there = members
                .iter()
                .flat_map(|m| m.trees.iter().map(|t| t.tree.to_string()));
            there
                .chain(
                    query_trees(&socket)
                        .unwrap_or_default()
                        .iter()
                        .map(ToString::to_string),
                )
                .collect()
        }
    };

    names.sort();
    names.dedup();
    let text: String = names.into_iter().map(|name| name + "\n").collect();

    // A closed pipe is not an error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(0)
}

/// Bash completions beyond flags: hosts and trees from the daemon, specs from the directory.
const BASH: &str = r#"
_makuo_live() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= word
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in
            -*) ;;
            *) command=$word; break ;;
        esac
    done
    case $prev in
        -t|--target)
            COMPREPLY=($(compgen -W "$(makuo complete hosts 2>/dev/null)" -- "$cur"))
            return ;;
        --tree)
            [[ $command == daemon ]] || {
                COMPREPLY=($(compgen -W "$(makuo complete trees 2>/dev/null)" -- "$cur"))
                return
            } ;;
    esac
    if [[ $cur != -* && $prev == "$command" ]]; then
        case $command in
            doctor)
                COMPREPLY=($(compgen -W "$(makuo complete hosts 2>/dev/null)" -- "$cur"))
                return ;;
            rollback|log|status|show|promote|abort)
                COMPREPLY=($(compgen -W "$(makuo complete trees 2>/dev/null)" -- "$cur"))
                return ;;
            deploy|diff|check|publish)
                compopt -o filenames
                COMPREPLY=($(compgen -f -X '!*.toml' -- "$cur") $(compgen -d -- "$cur"))
                [[ -n $cur ]] || COMPREPLY+=($(compgen -f -X '!*.toml' -- manifests/))
                return ;;
        esac
    fi
    _makuo "$@"
}
complete -F _makuo_live -o nosort -o bashdefault -o default makuo
"#;
