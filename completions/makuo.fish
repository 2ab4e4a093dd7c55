# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_makuo_global_optspecs
    string join \n json v/verbose q/quiet color= c/config= h/help V/version
end

function __fish_makuo_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_makuo_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_makuo_using_subcommand
    set -l cmd (__fish_makuo_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c makuo -n "__fish_makuo_needs_command" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_needs_command" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_needs_command" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_needs_command" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_needs_command" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_needs_command" -s V -l version -d 'Print version'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "deploy" -d 'Put the spec\'s release on every target host'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "watch" -d 'The live mode: deploy, then release each quiet batch of changes'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "diff" -d 'Audit drift: list differences between each host\'s tree and the spec\'s source; or compare two releases'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "commit" -d 'Commit a release that hosts keep staged'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "promote" -d 'Commit a staged release on the next batch of hosts'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "abort" -d 'Abort a release that hosts keep staged'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "hold" -d 'Keep hosts from committing releases for a time: they stage them, and catch up afterwards'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "release" -d 'End a hold'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "rollback" -d 'Return every host to an earlier release'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "publish" -d 'Sign a release of the spec\'s source and store it in a repository, for hosts to take later'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "pull" -d 'Take the newest release of a tree from a repository, without a daemon'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "repo" -d 'Look after a repository: list, check, delete what nobody needs, copy'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "log" -d 'List the fleet\'s releases: serial, time, key, files, bytes, and the hosts that run or keep them'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "show" -d 'Show a release: who made it, its message and entries; or print one of its files'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "pin" -d 'Keep a release on this host, whatever comes later'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "unpin" -d 'End the pin of a release'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "status" -d 'List the hosts with their release, state and last error'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "members" -d 'List the hosts alive now: name, address, version, trees'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "send" -d 'Ad hoc: send files of this host\'s tree to the same place on the others, through the local daemon'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "sync" -d 'Like send, and delete extra files under the paths on the others'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "check" -d 'Report errors in a spec or a configuration, or explain it'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "doctor" -d 'Find out why a deploy does not reach the hosts: interface, multicast, firewalls, MTU, loss, buffers, clocks, keys, disks'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "init" -d 'Create the keys of a group and one file for all of its hosts; unpack that file on a host'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "keygen" -d 'Create a deploy key in OpenSSH\'s format, and a group key'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "daemon" -d 'The host\'s service: receive releases; runs in the foreground'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "demo" -d 'Run three hosts on this machine\'s loopback with one real deploy, and suggest next steps'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "completions" -d 'Print a completion script'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "man" -d 'Write the man pages into a directory'
complete -c makuo -n "__fish_makuo_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -s m -l message -d 'What the release changes, in one line, for `makuo log`; signed with it' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l cosign -d 'Key that signs the release as well, for hosts with require_signatures (repeatable)' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l allow-deletes -d 'Allow this many deletions on a host, for this release alone, in place of the spec\'s limit. A host\'s own max_delete holds all the same' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l wait -d 'Wait this long for another deploy of the tree to end, instead of being refused at once' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l to -d 'Publish the release to this repository as well, once the hosts have it: for hosts that come later' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l ca-file -d 'Certificates in PEM form to trust for --to besides the system\'s' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -s t -l target -d 'Only hosts with a name that matches this glob, or a label such as zone=a (repeatable)' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -s k -l key -d 'Signing key: an OpenSSH file, or a .pub with its private half in the agent [default: the spec\'s, $MAKUO_KEY, ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l rate -d 'Rate limit, such as 500Mbit or 60MB' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l expect -d 'Fail unless N target hosts answer; known: all targets of earlier deploys from here' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l timeout -d 'Longest time for a host to answer or make progress' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -s n -l dry-run -d 'Print the changes on every host without making them'
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l yes-unmounted -d 'Continue although a filesystem in the source is no longer mounted: its files are missing from the release'
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l recheck -d 'Run health checks even on hosts without changes'
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l stage -d 'Stage the release and stop: hosts keep it, over restarts, until `makuo commit` or `makuo abort`, until it expires, or until a newer release takes its place'
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l delete -d 'Delete files outside the release, regardless of the spec'
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l no-delete -d 'Delete nothing, regardless of the spec'
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l checksum -d 'Make hosts re-read and re-hash every file instead of trusting size, mtime and ctime'
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l strict-host-keys -d 'Exclude a host with a changed key, instead of warning; new hosts are accepted. With require = "all" such a host ends the deploy with exit code 3 until its line is deleted'
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand deploy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l pause-file -d 'While this file exists, collect changes without deploying' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l settle -d 'Complete a batch after this long without changes' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l max-delay -d 'Complete a batch this long after its first change; files still being written wait for a later one' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand watch" -s m -l message -d 'What the release changes, in one line, for `makuo log`; signed with it' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand watch" -s t -l target -d 'Only hosts with a name that matches this glob, or a label such as zone=a (repeatable)' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand watch" -s k -l key -d 'Signing key: an OpenSSH file, or a .pub with its private half in the agent [default: the spec\'s, $MAKUO_KEY, ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l rate -d 'Rate limit, such as 500Mbit or 60MB' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l expect -d 'Fail unless N target hosts answer; known: all targets of earlier deploys from here' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l timeout -d 'Longest time for a host to answer or make progress' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand watch" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l once -d 'End as soon as the source is quiet'
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l no-initial -d 'Wait for a change before the first deploy'
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l delete -d 'Delete files outside the release, regardless of the spec'
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l no-delete -d 'Delete nothing, regardless of the spec'
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l checksum -d 'Make hosts re-read and re-hash every file instead of trusting size, mtime and ctime'
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l strict-host-keys -d 'Exclude a host with a changed key, instead of warning; new hosts are accepted. With require = "all" such a host ends the deploy with exit code 3 until its line is deleted'
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand watch" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand watch" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand watch" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand watch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand diff" -s t -l target -d 'Only hosts with a name that matches this glob, or a label such as zone=a (repeatable)' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand diff" -s k -l key -d 'Signing key: an OpenSSH file, or a .pub with its private half in the agent [default: the spec\'s, $MAKUO_KEY, ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l rate -d 'Rate limit, such as 500Mbit or 60MB' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l expect -d 'Fail unless N target hosts answer; known: all targets of earlier deploys from here' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l timeout -d 'Longest time for a host to answer or make progress' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l from -d 'Repository to read releases from [default: the state of this host]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l ca-file -d 'Certificates in PEM form to trust for --from besides the system\'s' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand diff" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l delete -d 'Delete files outside the release, regardless of the spec'
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l no-delete -d 'Delete nothing, regardless of the spec'
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l checksum -d 'Make hosts re-read and re-hash every file instead of trusting size, mtime and ctime'
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l strict-host-keys -d 'Exclude a host with a changed key, instead of warning; new hosts are accepted. With require = "all" such a host ends the deploy with exit code 3 until its line is deleted'
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand diff" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand diff" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand diff" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l require -d 'Hosts that have to be ready: all, a number or a share' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l batch -d 'Hosts that commit first; repeat it for the next batches, the rest follows last' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l on-failure -d 'What follows the failure of a hook or health check after the commit: stop commits no further batch, revert takes every host back' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand commit" -s t -l target -d 'Only hosts with a name that matches this glob, or a label such as zone=a (repeatable)' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand commit" -s k -l key -d 'Key that signed the release: an OpenSSH file, or a .pub with its private half in the agent [default: $MAKUO_KEY, ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l expect -d 'Fail unless N target hosts answer; known: all targets of earlier deploys from here' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l timeout -d 'Longest time for a host to answer or make progress' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand commit" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l recheck -d 'Run health checks even on hosts without changes'
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l checksum -d 'Make hosts re-read and re-hash every file instead of trusting size, mtime and ctime'
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l strict-host-keys -d 'Exclude a host with a changed key, instead of warning; new hosts are accepted. With require = "all" such a host ends the deploy with exit code 3 until its line is deleted'
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand commit" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand commit" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand commit" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand commit" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l batch -d 'Number of the batch to commit; refused if another one is next' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l require -d 'Hosts of a batch that have to be ready, and well before the next batch: all, a number or a share [default: the spec\'s]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l on-failure -d 'What follows the failure of a hook or health check after the commit: stop leaves the hosts as they are, revert takes every host back [default: the spec\'s]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand promote" -s k -l key -d 'Key that signed the release: an OpenSSH file, or a .pub with its private half in the agent [default: $MAKUO_KEY, ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l expect -d 'Fail unless N target hosts answer; known: all targets of earlier deploys from here' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l timeout -d 'Longest time for a host to answer or make progress' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand promote" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l recheck -d 'Run health checks even on hosts without changes'
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l checksum -d 'Make hosts re-read and re-hash every file instead of trusting size, mtime and ctime'
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l strict-host-keys -d 'Exclude a host with a changed key, instead of warning; new hosts are accepted. With require = "all" such a host ends the deploy with exit code 3 until its line is deleted'
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand promote" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand promote" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand promote" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand promote" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand abort" -s t -l target -d 'Only hosts with a name that matches this glob, or a label such as zone=a (repeatable)' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand abort" -s k -l key -d 'Key that signed the release: an OpenSSH file, or a .pub with its private half in the agent [default: $MAKUO_KEY, ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand abort" -l expect -d 'Fail unless N target hosts answer; known: all targets of earlier deploys from here' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand abort" -l timeout -d 'Longest time for a host to answer or make progress' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand abort" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand abort" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand abort" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand abort" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand abort" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand abort" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand abort" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand abort" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand abort" -l checksum -d 'Make hosts re-read and re-hash every file instead of trusting size, mtime and ctime'
complete -c makuo -n "__fish_makuo_using_subcommand abort" -l strict-host-keys -d 'Exclude a host with a changed key, instead of warning; new hosts are accepted. With require = "all" such a host ends the deploy with exit code 3 until its line is deleted'
complete -c makuo -n "__fish_makuo_using_subcommand abort" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand abort" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand abort" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand abort" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand abort" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand abort" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l tree -d 'Only this tree [default: all trees of these hosts]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand hold" -s k -l key -d 'Key to sign the order with: an OpenSSH file, or a .pub with its private half in the agent [default: $MAKUO_KEY, ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l socket -d 'Control socket of this machine\'s daemon [default: the configuration\'s]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l wait -d 'Time to wait for answers' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l for -d 'Length of the hold; at most 90d' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l why -d 'Reason, for those whose deploy meets the hold' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l by -d 'Who holds it [default: the user and this machine]' -r -f -a "(__fish_complete_users)"
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand hold" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand hold" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand hold" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand hold" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand hold" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand release" -l tree -d 'Only this tree [default: all trees of these hosts]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand release" -s k -l key -d 'Key to sign the order with: an OpenSSH file, or a .pub with its private half in the agent [default: $MAKUO_KEY, ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand release" -l socket -d 'Control socket of this machine\'s daemon [default: the configuration\'s]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand release" -l wait -d 'Time to wait for answers' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand release" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand release" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand release" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand release" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand release" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand release" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand release" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand release" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand release" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand release" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand release" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand release" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand release" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand release" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l to -d 'Release to return to [default: the newest earlier one that all hosts with the present one had]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -s m -l message -d 'What the release changes, in one line, for `makuo log`; signed with it' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l cosign -d 'Key that signs the release as well, for hosts with require_signatures (repeatable)' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -s t -l target -d 'Only hosts with a name that matches this glob, or a label such as zone=a (repeatable)' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -s k -l key -d 'Signing key: an OpenSSH file, or a .pub with its private half in the agent [default: $MAKUO_KEY, ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l authorized-keys -d 'Keys whose releases may be signed again, beside the signing key\'s own [default: the configuration\'s]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l rate -d 'Rate limit, such as 500Mbit or 60MB' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l expect -d 'Fail unless N target hosts answer; known: all targets of earlier deploys from here' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l timeout -d 'Longest time for a host to answer or make progress' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -s n -l dry-run -d 'Print the changes on every host without making them'
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l checksum -d 'Make hosts re-read and re-hash every file instead of trusting size, mtime and ctime'
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l strict-host-keys -d 'Exclude a host with a changed key, instead of warning; new hosts are accepted. With require = "all" such a host ends the deploy with exit code 3 until its line is deleted'
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand rollback" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l to -d 'Repository' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand publish" -s k -l key -d 'Signing key: an OpenSSH file, or a .pub with its private half in the agent [default: the spec\'s, $MAKUO_KEY, ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l authorized-keys -d 'Keys whose releases this one may follow, beside the signing key\'s own [default: the configuration\'s]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand publish" -s m -l message -d 'What the release changes, in one line, for `makuo log`; signed with it' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l cosign -d 'Key that signs the release as well, for hosts with require_signatures (repeatable)' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l keep -d 'Number of releases that the repository keeps [default: as before, at least 3]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l valid-for -d 'Hosts take nothing from the repository when this time is over, unless the head is signed again: somebody may withhold releases. `off` is for ever [default: as before]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l ca-file -d 'Certificates in PEM form to trust besides the system\'s' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l rate -d 'Rate limit, such as 500Mbit or 60MB' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand publish" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l again -d 'Publish a new release although nothing changed: hosts that failed try again'
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l repair -d 'Read everything that the repository has of the tree, and store again what is missing or damaged. Earlier releases that cannot be mended in this way leave the repository'
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l delete -d 'Delete files outside the release, regardless of the spec'
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l no-delete -d 'Delete nothing, regardless of the spec'
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l checksum -d 'Re-read and re-hash every file of the source, and have hosts do the same'
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l yes-unmounted -d 'Continue although a filesystem in the source is no longer mounted: its files are missing from the release'
complete -c makuo -n "__fish_makuo_using_subcommand publish" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand publish" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand publish" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand publish" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand pull" -l name -d 'Name of this host [default: the configuration\'s, else the system\'s]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand pull" -l state-dir -d 'Directory for staging, on the tree\'s filesystem [default: .makuo beside the tree]' -r -f -a "(__fish_complete_directories)"
complete -c makuo -n "__fish_makuo_using_subcommand pull" -l authorized-keys -d 'Keys that may release the tree [default: the configuration\'s]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand pull" -l ca-file -d 'Certificates in PEM form to trust besides the system\'s' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand pull" -l rate -d 'Rate limit, such as 500Mbit or 60MB' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand pull" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand pull" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand pull" -l allow-stale -d 'Take a release although the repository is stale: its head has not been signed again in time'
complete -c makuo -n "__fish_makuo_using_subcommand pull" -l once -d 'Pull once and end, which is the default'
complete -c makuo -n "__fish_makuo_using_subcommand pull" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand pull" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand pull" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand pull" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and not __fish_seen_subcommand_from list check gc copy renew rollback" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand repo; and not __fish_seen_subcommand_from list check gc copy renew rollback" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and not __fish_seen_subcommand_from list check gc copy renew rollback" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and not __fish_seen_subcommand_from list check gc copy renew rollback" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and not __fish_seen_subcommand_from list check gc copy renew rollback" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and not __fish_seen_subcommand_from list check gc copy renew rollback" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and not __fish_seen_subcommand_from list check gc copy renew rollback" -f -a "list" -d 'List the trees and their releases'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and not __fish_seen_subcommand_from list check gc copy renew rollback" -f -a "check" -d 'Hash every byte, and follow every release'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and not __fish_seen_subcommand_from list check gc copy renew rollback" -f -a "gc" -d 'Delete what no release refers to any more'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and not __fish_seen_subcommand_from list check gc copy renew rollback" -f -a "copy" -d 'Copy everything to another store or a disk'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and not __fish_seen_subcommand_from list check gc copy renew rollback" -f -a "renew" -d 'Sign heads again, for a later time'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and not __fish_seen_subcommand_from list check gc copy renew rollback" -f -a "rollback" -d 'Publish an earlier release again, under a new serial'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from list" -l tree -d 'Only this tree; without it the store has to be able to list its objects' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from list" -l authorized-keys -d 'Keys that may release the trees [default: the configuration\'s]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from list" -l ca-file -d 'Certificates in PEM form to trust besides the system\'s' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from list" -l rate -d 'Rate limit, such as 500Mbit or 60MB' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from list" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from list" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from list" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from list" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from check" -l authorized-keys -d 'Keys that may release the trees [default: the configuration\'s]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from check" -l ca-file -d 'Certificates in PEM form to trust besides the system\'s' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from check" -l rate -d 'Rate limit, such as 500Mbit or 60MB' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from check" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from check" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from check" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from check" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from check" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from gc" -s k -l key -d 'Key to sign new heads with: an OpenSSH file, or a .pub with its private half in the agent' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from gc" -l keep -d 'Number of releases to keep of each tree [default: all that publishers kept]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from gc" -l grace -d 'Keep what is younger than this: a publisher may be about to refer to it' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from gc" -l authorized-keys -d 'Keys that may release the trees [default: the configuration\'s]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from gc" -l ca-file -d 'Certificates in PEM form to trust besides the system\'s' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from gc" -l rate -d 'Rate limit, such as 500Mbit or 60MB' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from gc" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from gc" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from gc" -l no-trees -d 'Delete what is older than that although the repository has no tree: its first publication never ended'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from gc" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from gc" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from gc" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from gc" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from copy" -l authorized-keys -d 'Keys that may release the trees: heads by others are refused [default: any key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from copy" -l ca-file -d 'Certificates in PEM form to trust besides the system\'s' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from copy" -l rate -d 'Rate limit, such as 500Mbit or 60MB' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from copy" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from copy" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from copy" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from copy" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from copy" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from copy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from renew" -l valid-for -d 'Time until the new head is stale; `off` is never [default: as before]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from renew" -s k -l key -d 'Key to sign with: an OpenSSH file, or a .pub with its private half in the agent [default: $MAKUO_KEY, ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from renew" -l authorized-keys -d 'Keys whose heads and releases may be signed again, beside the signing key\'s own [default: the configuration\'s]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from renew" -l ca-file -d 'Certificates in PEM form to trust besides the system\'s' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from renew" -l rate -d 'Rate limit, such as 500Mbit or 60MB' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from renew" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from renew" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from renew" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from renew" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from renew" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from renew" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from rollback" -l to -d 'Release to return to [default: the newest one before with other content]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from rollback" -s m -l message -d 'What the release changes, in one line, for `makuo log`; signed with it' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from rollback" -l cosign -d 'Key that signs the release as well, for hosts with require_signatures (repeatable)' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from rollback" -l keep -d 'Number of releases that the repository keeps [default: as before, at least 3]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from rollback" -s k -l key -d 'Key to sign with: an OpenSSH file, or a .pub with its private half in the agent [default: $MAKUO_KEY, ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from rollback" -l authorized-keys -d 'Keys whose heads and releases may be signed again, beside the signing key\'s own [default: the configuration\'s]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from rollback" -l ca-file -d 'Certificates in PEM form to trust besides the system\'s' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from rollback" -l rate -d 'Rate limit, such as 500Mbit or 60MB' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from rollback" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from rollback" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from rollback" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from rollback" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from rollback" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand repo; and __fish_seen_subcommand_from rollback" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand log" -l wait -d 'Time to wait for answers' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand log" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand log" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand log" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand log" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand log" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand log" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand log" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand log" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand log" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand log" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand log" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand log" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand log" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand log" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand show" -l from -d 'Repository to read releases from [default: the state of this host]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand show" -l ca-file -d 'Certificates in PEM form to trust for --from besides the system\'s' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand show" -l wait -d 'Time to wait for answers' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand show" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand show" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand show" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand show" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand show" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand show" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand show" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand show" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand show" -l paths -d 'List the entries, as -v does'
complete -c makuo -n "__fish_makuo_using_subcommand show" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand show" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand show" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand show" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand show" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand pin" -l repository -d 'Repository in which the release stays, instead of this host' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand pin" -s k -l key -d 'Key to sign with: an OpenSSH file, or a .pub with its private half in the agent [default: $MAKUO_KEY, ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand pin" -l authorized-keys -d 'Keys whose heads may be signed again, beside the signing key\'s own [default: the configuration\'s]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand pin" -l ca-file -d 'Certificates in PEM form to trust for --repository besides the system\'s' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand pin" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand pin" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand pin" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand pin" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand pin" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand pin" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand unpin" -l repository -d 'Repository in which the release stays, instead of this host' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand unpin" -s k -l key -d 'Key to sign with: an OpenSSH file, or a .pub with its private half in the agent [default: $MAKUO_KEY, ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand unpin" -l authorized-keys -d 'Keys whose heads may be signed again, beside the signing key\'s own [default: the configuration\'s]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand unpin" -l ca-file -d 'Certificates in PEM form to trust for --repository besides the system\'s' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand unpin" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand unpin" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand unpin" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand unpin" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand unpin" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand unpin" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand status" -l wait -d 'Time to wait for answers' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand status" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand status" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand status" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand status" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand status" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand status" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand status" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand status" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand status" -s w -l watch -d 'Look again every few seconds until Ctrl-C: redrawn on a terminal, elsewhere a line for each change'
complete -c makuo -n "__fish_makuo_using_subcommand status" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand status" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand status" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand status" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand status" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand members" -l wait -d 'Time to listen for answers' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand members" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand members" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand members" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand members" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand members" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand members" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand members" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand members" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand members" -s w -l watch -d 'Look again every few seconds until Ctrl-C: redrawn on a terminal, elsewhere a line for each change'
complete -c makuo -n "__fish_makuo_using_subcommand members" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand members" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand members" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand members" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand members" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand members" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand send" -l to -d 'Put the path at another place in the tree, on every host, this one among them; into a directory if PATH ends with a slash' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand send" -s t -l target -d 'Only hosts with a name that matches this glob, or a label such as zone=a (repeatable)' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand send" -s m -l message -d 'What the release changes, in one line, for `makuo log`; signed with it' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand send" -l tree -d 'Tree, if this host has several and no path selects one' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand send" -l exclude -d 'Exclude paths that match this line in .gitignore syntax (repeatable)' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand send" -l max-delete -d 'Largest number of deletions on one host [default: 50% of a whole tree, no limit for paths]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand send" -l socket -d 'Control socket of the daemon [default: the configuration\'s]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand send" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand send" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand send" -s D -l delete -d 'Delete extra files under the paths on the others'
complete -c makuo -n "__fish_makuo_using_subcommand send" -s r -l recursive -d 'Include the content of directories'
complete -c makuo -n "__fish_makuo_using_subcommand send" -s n -l dry-run -d 'Print the changes on every host without making them'
complete -c makuo -n "__fish_makuo_using_subcommand send" -l checksum -d 'Make hosts re-read and re-hash every file instead of trusting size, mtime and ctime'
complete -c makuo -n "__fish_makuo_using_subcommand send" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand send" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand send" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand send" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand sync" -s t -l target -d 'Only hosts with a name that matches this glob, or a label such as zone=a (repeatable)' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand sync" -s m -l message -d 'What the release changes, in one line, for `makuo log`; signed with it' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand sync" -l tree -d 'Tree, if this host has several and no path selects one' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand sync" -l exclude -d 'Exclude paths that match this line in .gitignore syntax (repeatable)' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand sync" -l max-delete -d 'Largest number of deletions on one host [default: 50% of a whole tree, no limit for paths]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand sync" -l socket -d 'Control socket of the daemon [default: the configuration\'s]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand sync" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand sync" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand sync" -s r -l recursive -d 'Include the content of directories'
complete -c makuo -n "__fish_makuo_using_subcommand sync" -s n -l dry-run -d 'Print the changes on every host without making them'
complete -c makuo -n "__fish_makuo_using_subcommand sync" -l checksum -d 'Make hosts re-read and re-hash every file instead of trusting size, mtime and ctime'
complete -c makuo -n "__fish_makuo_using_subcommand sync" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand sync" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand sync" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand sync" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand check" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand check" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand check" -l elsewhere -d 'Check a configuration without this machine: it is for another one'
complete -c makuo -n "__fish_makuo_using_subcommand check" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand check" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand check" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -l long -d 'Wait for a querier as well, up to 130 seconds: switches with IGMP snooping need one for most groups. Listening for it needs root'
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand init" -l host -d 'Unpack this host file, beside the configuration named by --config' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand init" -s o -l output -d 'Path of the host file [default: ~/.config/makuo/host.toml]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand init" -s k -l key -d 'Existing deploy key to use, or its .pub [default: ~/.config/makuo/deploy.key]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand init" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand init" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand init" -l force -d 'Overwrite files with other content'
complete -c makuo -n "__fish_makuo_using_subcommand init" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand init" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand init" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand keygen" -s o -l output -d 'Path of the key, a deploy key unless --group is given; the public half gets .pub' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand keygen" -l comment -d 'Comment in the public key [default: user@host]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand keygen" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand keygen" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand keygen" -l force -d 'Overwrite an existing deploy key; with --group, a group key'
complete -c makuo -n "__fish_makuo_using_subcommand keygen" -l deploy -d 'Create only a deploy key, which signs releases'
complete -c makuo -n "__fish_makuo_using_subcommand keygen" -l group -d 'Create only a group key, which seals every datagram; hosts accept only datagrams sealed with it'
complete -c makuo -n "__fish_makuo_using_subcommand keygen" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand keygen" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand keygen" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand keygen" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -s b -l base -d 'Manage DIR as the tree `default`' -r -f -a "(__fish_complete_directories)"
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l tree -d 'Manage DIR as the tree NAME (repeatable)' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l name -d 'Name of this host [default: the system\'s]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l state-dir -d 'Directory for staging, on the trees\' filesystem [default: .makuo beside each tree]' -r -f -a "(__fish_complete_directories)"
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l authorized-keys -d 'Keys that may deploy and audit [default: /etc/makuo/authorized_keys]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -s u -l user -d 'Run as this user' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l run-group -d 'Run as this group' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l console -d 'Address of the makuosan console [default: off]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l socket -d 'Path of the control socket [default: /run/makuo/makuo.sock]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l metrics -d 'Address of the page and the metrics [default: off]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l interface -d 'Interface to use, by name or address; several with commas or by repetition' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l peers -d 'Hosts to start from where multicast does not reach, with a port if it is not 5001; they name the others' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l group -d 'Multicast group [default: 224.0.0.108]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l port -d 'UDP port [default: 5000]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l ttl -d 'TTL of datagrams: 1 for this link only, one more for each router, with a --group that routers forward, such as 239.255.0.108 [default: 1]' -r -f
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l group-key -d 'Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a change of keys: seal with the first, open with any' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l no-multicast -d 'Send and receive no multicast: all hosts are found from those of --peers'
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l plain -d 'Go without a group key: anybody on the network can read traffic, and lie about hosts'
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand daemon" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand demo" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand demo" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand demo" -l no-multicast -d 'Show it on a network without multicast: the hosts find each other from web1'
complete -c makuo -n "__fish_makuo_using_subcommand demo" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand demo" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand demo" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand demo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand completions" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand completions" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand completions" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand completions" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand completions" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand man" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set or the terminal is dumb'
always\t'Always'
never\t'Never'"
complete -c makuo -n "__fish_makuo_using_subcommand man" -s c -l config -d 'The host\'s configuration [default: /etc/makuo/makuo.toml, when it exists]' -r -F
complete -c makuo -n "__fish_makuo_using_subcommand man" -l json -d 'Print one JSON object a line; the last is the result'
complete -c makuo -n "__fish_makuo_using_subcommand man" -s v -l verbose -d 'Log more; twice for debugging'
complete -c makuo -n "__fish_makuo_using_subcommand man" -s q -l quiet -d 'Print results and errors only'
complete -c makuo -n "__fish_makuo_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "deploy" -d 'Put the spec\'s release on every target host'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "watch" -d 'The live mode: deploy, then release each quiet batch of changes'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "diff" -d 'Audit drift: list differences between each host\'s tree and the spec\'s source; or compare two releases'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "commit" -d 'Commit a release that hosts keep staged'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "promote" -d 'Commit a staged release on the next batch of hosts'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "abort" -d 'Abort a release that hosts keep staged'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "hold" -d 'Keep hosts from committing releases for a time: they stage them, and catch up afterwards'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "release" -d 'End a hold'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "rollback" -d 'Return every host to an earlier release'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "publish" -d 'Sign a release of the spec\'s source and store it in a repository, for hosts to take later'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "pull" -d 'Take the newest release of a tree from a repository, without a daemon'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "repo" -d 'Look after a repository: list, check, delete what nobody needs, copy'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "log" -d 'List the fleet\'s releases: serial, time, key, files, bytes, and the hosts that run or keep them'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "show" -d 'Show a release: who made it, its message and entries; or print one of its files'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "pin" -d 'Keep a release on this host, whatever comes later'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "unpin" -d 'End the pin of a release'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "status" -d 'List the hosts with their release, state and last error'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "members" -d 'List the hosts alive now: name, address, version, trees'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "send" -d 'Ad hoc: send files of this host\'s tree to the same place on the others, through the local daemon'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "sync" -d 'Like send, and delete extra files under the paths on the others'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "check" -d 'Report errors in a spec or a configuration, or explain it'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "doctor" -d 'Find out why a deploy does not reach the hosts: interface, multicast, firewalls, MTU, loss, buffers, clocks, keys, disks'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "init" -d 'Create the keys of a group and one file for all of its hosts; unpack that file on a host'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "keygen" -d 'Create a deploy key in OpenSSH\'s format, and a group key'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "daemon" -d 'The host\'s service: receive releases; runs in the foreground'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "demo" -d 'Run three hosts on this machine\'s loopback with one real deploy, and suggest next steps'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "completions" -d 'Print a completion script'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "man" -d 'Write the man pages into a directory'
complete -c makuo -n "__fish_makuo_using_subcommand help; and not __fish_seen_subcommand_from deploy watch diff commit promote abort hold release rollback publish pull repo log show pin unpin status members send sync check doctor init keygen daemon demo completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c makuo -n "__fish_makuo_using_subcommand help; and __fish_seen_subcommand_from repo" -f -a "list" -d 'List the trees and their releases'
complete -c makuo -n "__fish_makuo_using_subcommand help; and __fish_seen_subcommand_from repo" -f -a "check" -d 'Hash every byte, and follow every release'
complete -c makuo -n "__fish_makuo_using_subcommand help; and __fish_seen_subcommand_from repo" -f -a "gc" -d 'Delete what no release refers to any more'
complete -c makuo -n "__fish_makuo_using_subcommand help; and __fish_seen_subcommand_from repo" -f -a "copy" -d 'Copy everything to another store or a disk'
complete -c makuo -n "__fish_makuo_using_subcommand help; and __fish_seen_subcommand_from repo" -f -a "renew" -d 'Sign heads again, for a later time'
complete -c makuo -n "__fish_makuo_using_subcommand help; and __fish_seen_subcommand_from repo" -f -a "rollback" -d 'Publish an earlier release again, under a new serial'
complete -c makuo -n "__fish_makuo_using_subcommand commit promote abort hold release rollback repo log show pin unpin status members doctor init keygen daemon demo completions help" -f
complete -c makuo -n "__fish_makuo_using_subcommand rollback log status show promote abort" -a "(makuo complete trees 2>/dev/null)"
complete -c makuo -n "__fish_makuo_using_subcommand doctor" -a "(makuo complete hosts 2>/dev/null)"
