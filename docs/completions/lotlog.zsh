#compdef lotlog

autoload -U is-at-least

_lotlog() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
'-V[Print version]' \
'--version[Print version]' \
":: :_lotlog_commands" \
"*::: :->lotlog" \
&& ret=0
    case $state in
    (lotlog)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:lotlog-command-$line[1]:"
        case $line[1] in
            (send)
_arguments "${_arguments_options[@]}" : \
'(--requests)--lot=[Lot of the items \[default\: the context'\''s lot_id, else the lot \`unassigned\`\]]:ID:_default' \
'(--requests)*--context=[A value of the context; JSON where it is JSON (1.25, true, {"sims"\:100}), else text. May be given again]:KEY=VALUE:_default' \
'(--requests)--context-json=[A file with the context, one JSON object; --context and --lot go before it]:FILE:_files' \
'(--requests)--batch-size=[Items in a batch, at most (a batch is also closed at 4 MiB)]:N:_default' \
'(--requests)--ack=[What an acknowledgement promises\: synced or written \[default\: the daemon'\''s setting\]]:ACK:_default' \
'(--requests)--format=[How the items are written \[default\: by the file'\''s name, else by the first byte\]]:FORMAT:((csv\:"A header and one item a row; an empty cell is a missing value"
jsonl\:"One JSON object a line"))' \
'(--requests)--session=[Session name, to go on where an earlier run with the same input and options gave up \[default\: a new UUID\]]:NAME:_default' \
'(--lot --context --context-json --batch-size --ack --format --session --requests)--spool=[Deliver what a client has spooled in this directory while the daemon was away, in order and once]:DIR:_files' \
'--socket=[The daemon'\''s socket \[default\: \$XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system'\''s temporary directory\]]:PATH:_files' \
'--timeout=[Longest wait for the daemon\: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)]:TIME:_default' \
'--requests[The input is request lines of the protocol, each sent as it is; those with session and seq are sent again after a broken connection, the others are then reported as unknown]' \
'--json[Summary as one JSON object on standard output]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'::file -- The input \[default\: standard input, as `-`\]:_files' \
&& ret=0
;;
(status)
_arguments "${_arguments_options[@]}" : \
'--wait=[Wait so long for a daemon that is not there yet or still recovering (units ms, s, m, h)]:TIME:_default' \
'--socket=[The daemon'\''s socket \[default\: \$XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system'\''s temporary directory\]]:PATH:_files' \
'--timeout=[Longest wait for the daemon\: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)]:TIME:_default' \
'--json[The daemon'\''s answer as it came\: one JSON object]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(top)
_arguments "${_arguments_options[@]}" : \
'--interval=[Time between two looks (units ms, s, m)]:TIME:_default' \
'-n+[End after so many looks]:N:_default' \
'--count=[End after so many looks]:N:_default' \
'--socket=[The daemon'\''s socket \[default\: \$XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system'\''s temporary directory\]]:PATH:_files' \
'--timeout=[Longest wait for the daemon\: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)]:TIME:_default' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(sync)
_arguments "${_arguments_options[@]}" : \
'--socket=[The daemon'\''s socket \[default\: \$XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system'\''s temporary directory\]]:PATH:_files' \
'--timeout=[Longest wait for the daemon\: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)]:TIME:_default' \
'--json[The daemon'\''s answer as it came\: one JSON object]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(lots)
_arguments "${_arguments_options[@]}" : \
'--data-dir=[The daemon'\''s data directory \[default\: asked from the daemon; without one \$XDG_STATE_HOME/lotlog, else ~/.local/state/lotlog\]]:DIR:_files' \
'--socket=[The daemon'\''s socket \[default\: \$XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system'\''s temporary directory\]]:PATH:_files' \
'--timeout=[Longest wait for the daemon\: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)]:TIME:_default' \
'--json[One JSON object on standard output]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(cat)
_arguments "${_arguments_options[@]}" : \
'--data-dir=[The daemon'\''s data directory \[default\: asked from the daemon; without one \$XDG_STATE_HOME/lotlog, else ~/.local/state/lotlog\]]:DIR:_files' \
'--socket=[The daemon'\''s socket \[default\: \$XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system'\''s temporary directory\]]:PATH:_files' \
'--timeout=[Longest wait for the daemon\: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)]:TIME:_default' \
'-h[Print help]' \
'--help[Print help]' \
':lot -- The lot'\''s id, as it was sent (not its file name):_default' \
&& ret=0
;;
(tail)
_arguments "${_arguments_options[@]}" : \
'-n+[How many records to begin with]:N:_default' \
'--lines=[How many records to begin with]:N:_default' \
'--data-dir=[The daemon'\''s data directory \[default\: asked from the daemon; without one \$XDG_STATE_HOME/lotlog, else ~/.local/state/lotlog\]]:DIR:_files' \
'--socket=[The daemon'\''s socket \[default\: \$XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system'\''s temporary directory\]]:PATH:_files' \
'--timeout=[Longest wait for the daemon\: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)]:TIME:_default' \
'-f[Go on with what is added, until interrupted; follows through rotation, and waits for a lot that is not there yet]' \
'--follow[Go on with what is added, until interrupted; follows through rotation, and waits for a lot that is not there yet]' \
'-h[Print help]' \
'--help[Print help]' \
':lot -- The lot'\''s id, as it was sent (not its file name):_default' \
&& ret=0
;;
(reload)
_arguments "${_arguments_options[@]}" : \
'--socket=[The daemon'\''s socket \[default\: \$XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system'\''s temporary directory\]]:PATH:_files' \
'--timeout=[Longest wait for the daemon\: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)]:TIME:_default' \
'--json[The daemon'\''s answer as it came\: one JSON object]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(rotate)
_arguments "${_arguments_options[@]}" : \
'--socket=[The daemon'\''s socket \[default\: \$XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system'\''s temporary directory\]]:PATH:_files' \
'--timeout=[Longest wait for the daemon\: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)]:TIME:_default' \
'--all[Every lot]' \
'--json[The daemon'\''s answer as it came\: one JSON object]' \
'-h[Print help]' \
'--help[Print help]' \
'::lot -- The lot'\''s id, as it was sent (not its file name):_default' \
&& ret=0
;;
(seal)
_arguments "${_arguments_options[@]}" : \
'--socket=[The daemon'\''s socket \[default\: \$XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system'\''s temporary directory\]]:PATH:_files' \
'--timeout=[Longest wait for the daemon\: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)]:TIME:_default' \
'--json[The daemon'\''s answer as it came\: one JSON object]' \
'-h[Print help]' \
'--help[Print help]' \
':lot -- The lot'\''s id, as it was sent (not its file name):_default' \
&& ret=0
;;
(verify)
_arguments "${_arguments_options[@]}" : \
'--data-dir=[The daemon'\''s data directory \[default\: asked from the daemon; without one \$XDG_STATE_HOME/lotlog, else ~/.local/state/lotlog\]]:DIR:_files' \
'--socket=[The daemon'\''s socket \[default\: \$XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system'\''s temporary directory\]]:PATH:_files' \
'--timeout=[Longest wait for the daemon\: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)]:TIME:_default' \
'--json[One JSON object instead of text]' \
'--strict[Exit 65 for notes too]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'::data -- The data directory \[default\: as --data-dir\]:_files' \
&& ret=0
;;
(bench)
_arguments "${_arguments_options[@]}" : \
'(--running)--dir=[Where the temporary directory is made \[default\: the system'\''s temporary directory\]]:DIR:_files' \
'--producers=[Producers, each with a connection and a session of its own]:N:_default' \
'--items=[Items in a batch, of about 425 bytes each]:N:_default' \
'--lots=[Lots]:N:_default' \
'--seconds=[How long each durability is measured (units ms, s, m, h; a bare number is seconds)]:TIME:_default' \
'(--seconds)--batches=[Send so many batches per producer, however long it takes, instead of --seconds]:N:_default' \
'--outstanding=[Batches that a producer has sent and not yet acknowledged, at most]:N:_default' \
'--ack=[Measure only this durability\: synced or written \[default\: both\]]:ACK:_default' \
'--socket=[The daemon'\''s socket \[default\: \$XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system'\''s temporary directory\]]:PATH:_files' \
'--timeout=[Longest wait for the daemon\: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)]:TIME:_default' \
'--running[Measure the daemon that runs at the usual socket; its lots BENCH_LOT_0000... are written]' \
'--json[One JSON object on standard output]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(completions)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
':shell -- The shell:(bash zsh fish)' \
&& ret=0
;;
(man)
_arguments "${_arguments_options[@]}" : \
'()--all=[Write all pages, each to a file of its name in this directory]:DIR:_files' \
'-h[Print help]' \
'--help[Print help]' \
'::page -- lotlog, lotlogd, or lotlog-COMMAND:_default' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_lotlog__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:lotlog-help-command-$line[1]:"
        case $line[1] in
            (send)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(status)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(top)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(sync)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(lots)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(cat)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(tail)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(reload)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(rotate)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(seal)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(verify)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(bench)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(completions)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(man)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
}

(( $+functions[_lotlog_commands] )) ||
_lotlog_commands() {
    local commands; commands=(
'send:Send items (CSV, JSONL) or ready request lines to the daemon' \
'status:Show how the daemon is doing' \
'top:Show how the daemon is doing, live' \
'sync:Wait until everything the daemon accepted is on disk and in the lot files' \
'lots:List the lots\: records, bytes, time of the last record' \
'cat:Print a lot'\''s records' \
'tail:Print a lot'\''s last records, and follow it' \
'reload:Have the daemon reopen the lot files, and wait for it' \
'rotate:Have the daemon move lot files into the archive, and wait for it' \
'seal:Have the daemon close a lot for good' \
'verify:Say what is wrong with a data directory, if anything is' \
'bench:Measure a daemon with the canonical workload' \
'completions:Print a completion script for a shell' \
'man:Print a man page (roff)' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'lotlog commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__bench_commands] )) ||
_lotlog__subcmd__bench_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog bench commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__cat_commands] )) ||
_lotlog__subcmd__cat_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog cat commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__completions_commands] )) ||
_lotlog__subcmd__completions_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog completions commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help_commands] )) ||
_lotlog__subcmd__help_commands() {
    local commands; commands=(
'send:Send items (CSV, JSONL) or ready request lines to the daemon' \
'status:Show how the daemon is doing' \
'top:Show how the daemon is doing, live' \
'sync:Wait until everything the daemon accepted is on disk and in the lot files' \
'lots:List the lots\: records, bytes, time of the last record' \
'cat:Print a lot'\''s records' \
'tail:Print a lot'\''s last records, and follow it' \
'reload:Have the daemon reopen the lot files, and wait for it' \
'rotate:Have the daemon move lot files into the archive, and wait for it' \
'seal:Have the daemon close a lot for good' \
'verify:Say what is wrong with a data directory, if anything is' \
'bench:Measure a daemon with the canonical workload' \
'completions:Print a completion script for a shell' \
'man:Print a man page (roff)' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'lotlog help commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__bench_commands] )) ||
_lotlog__subcmd__help__subcmd__bench_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help bench commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__cat_commands] )) ||
_lotlog__subcmd__help__subcmd__cat_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help cat commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__completions_commands] )) ||
_lotlog__subcmd__help__subcmd__completions_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help completions commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__help_commands] )) ||
_lotlog__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help help commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__lots_commands] )) ||
_lotlog__subcmd__help__subcmd__lots_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help lots commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__man_commands] )) ||
_lotlog__subcmd__help__subcmd__man_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help man commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__reload_commands] )) ||
_lotlog__subcmd__help__subcmd__reload_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help reload commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__rotate_commands] )) ||
_lotlog__subcmd__help__subcmd__rotate_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help rotate commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__seal_commands] )) ||
_lotlog__subcmd__help__subcmd__seal_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help seal commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__send_commands] )) ||
_lotlog__subcmd__help__subcmd__send_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help send commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__status_commands] )) ||
_lotlog__subcmd__help__subcmd__status_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help status commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__sync_commands] )) ||
_lotlog__subcmd__help__subcmd__sync_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help sync commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__tail_commands] )) ||
_lotlog__subcmd__help__subcmd__tail_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help tail commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__top_commands] )) ||
_lotlog__subcmd__help__subcmd__top_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help top commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__help__subcmd__verify_commands] )) ||
_lotlog__subcmd__help__subcmd__verify_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog help verify commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__lots_commands] )) ||
_lotlog__subcmd__lots_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog lots commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__man_commands] )) ||
_lotlog__subcmd__man_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog man commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__reload_commands] )) ||
_lotlog__subcmd__reload_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog reload commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__rotate_commands] )) ||
_lotlog__subcmd__rotate_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog rotate commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__seal_commands] )) ||
_lotlog__subcmd__seal_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog seal commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__send_commands] )) ||
_lotlog__subcmd__send_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog send commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__status_commands] )) ||
_lotlog__subcmd__status_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog status commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__sync_commands] )) ||
_lotlog__subcmd__sync_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog sync commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__tail_commands] )) ||
_lotlog__subcmd__tail_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog tail commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__top_commands] )) ||
_lotlog__subcmd__top_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog top commands' commands "$@"
}
(( $+functions[_lotlog__subcmd__verify_commands] )) ||
_lotlog__subcmd__verify_commands() {
    local commands; commands=()
    _describe -t commands 'lotlog verify commands' commands "$@"
}

if [ "$funcstack[1]" = "_lotlog" ]; then
    _lotlog "$@"
else
    compdef _lotlog lotlog
fi
#compdef lotlogd

autoload -U is-at-least

_lotlogd() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'--data-dir=[Directory of the lot files and the journal; made if it is missing \[a path\] \[default\: \$STATE_DIRECTORY, else \$XDG_STATE_HOME/lotlog, else ~/.local/state/lotlog\]]:PATH:_default' \
'--socket=[Unix socket to listen on, also instead of an inherited one; LOTLOG_SOCKET names it for daemon and clients alike \[a path\] \[default\: the socket inherited from systemd, else \$RUNTIME_DIRECTORY/lotlog.sock, else \$XDG_RUNTIME_DIR/lotlog.sock, else as root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the temp directory\]]:PATH:_default' \
'--socket-mode=[Mode of the socket file\: who may connect at all \[octal; 0000 to 0777\] \[default\: 0660\]]:MODE:_default' \
'--socket-owner=[User, by name or number, that owns the socket file; only root can give it to another than its own \[a name or number\] \[default\: the daemon'\''s\]]:USER:_default' \
'--socket-group=[Group, by name or number, of the socket file\: one that the daemon is a member of, unless it is root \[a name or number\] \[default\: the daemon'\''s\]]:GROUP:_default' \
'--durability=[What an acknowledgement promises unless the request says\: \`synced\` survives power loss, \`written\` any death of the daemon \[synced or written\] \[default\: synced\]]:synced|written:_default' \
'--allow-users=[Users, by name or number, that may connect; with both lists empty all whom the socket'\''s mode lets in \[names or numbers, separated by commas\] \[default\: none\]]:LIST:_default' \
'--allow-groups=[Groups, by name or number, whose members may connect \[names or numbers, separated by commas\] \[default\: none\]]:LIST:_default' \
'--metrics=[Where to serve Prometheus metrics (/metrics, /healthz) over HTTP, to anyone who can connect\: 127.0.0.1\:9464, or the path of a Unix socket; without it there is no network code at work \[an IP address and port, or a path with a slash\] \[default\: none\]]:ADDR|PATH:_default' \
'--log-format=[Form of the daemon'\''s own log on stderr; \`auto\` is text, without timestamps on a terminal and under journald \[auto, text or json\] \[default\: auto\]]:auto|text|json:_default' \
'--log-level=[Least serious events of the daemon'\''s own log; each -v shows more, each -q fewer; reread on SIGHUP \[error, warn, info, debug or trace\] \[default\: info\]]:LEVEL:_default' \
'--max-line-bytes=[Longest request line, without its newline; beyond it \`too_large\`, and the connection is closed \[bytes, B, KB, MB, GB, KiB, MiB or GiB; 1KiB to 256MiB\] \[default\: 16MiB\]]:SIZE:_default' \
'--max-items=[Most items in a batch; beyond it \`too_large\` \[a number; 1 to 100000000\] \[default\: 100000\]]:N:_default' \
'--max-context-bytes=[Longest context as it is written to a record; beyond it \`too_large\` \[bytes, B, KB, MB, GB, KiB, MiB or GiB; 1KiB to 64MiB\] \[default\: 64KiB\]]:SIZE:_default' \
'--max-batch-bytes=[Largest batch as records, its context copied into each; beyond it \`too_large\` \[bytes, B, KB, MB, GB, KiB, MiB or GiB; 4KiB to 16GiB\] \[default\: 256MiB\]]:SIZE:_default' \
'--max-nesting=[Deepest JSON nesting, the request object being level 1; beyond it \`invalid_json\` \[a number; 4 to 120\] \[default\: 64\]]:N:_default' \
'--max-requests-in-flight=[Requests in flight on one connection; beyond it the daemon stops reading it for the time being \[a number; 1 to 65536\] \[default\: 256\]]:N:_default' \
'--max-bytes-in-flight=[Bytes in flight over all connections; beyond it the daemon stops reading for the time being \[bytes, B, KB, MB, GB, KiB, MiB or GiB; 64KiB to 64GiB\] \[default\: 64MiB\]]:SIZE:_default' \
'--max-connections=[Connections; a further one is answered \`busy\` and closed \[a number; 1 to 1000000\] \[default\: 4096\]]:N:_default' \
'--max-connections-per-user=[Connections of one user; a further one is answered \`busy\` and closed \[a number; 1 to 1000000\] \[default\: 4096\]]:N:_default' \
'--max-bytes-in-flight-per-user=[Bytes in flight of one user while another one sends batches too, and 10 s more; beyond it the daemon stops reading that user'\''s connections for the time being \[bytes, B, KB, MB, GB, KiB, MiB or GiB; 16KiB to 64GiB\] \[default\: 128KiB\]]:SIZE:_default' \
'--line-timeout-seconds=[A started line must get 16 KiB in this time; else \`timeout\`, and the connection is closed \[seconds, or ms, s, m, h, d; 10ms to 60m\] \[default\: 30s\]]:TIME:_default' \
'--reply-timeout-seconds=[Replies must be read with some progress in this time; else the connection is closed \[seconds, or ms, s, m, h, d; 10ms to 60m\] \[default\: 30s\]]:TIME:_default' \
'--drain-timeout-seconds=[How long open requests may take to finish after SIGTERM or SIGINT; beyond it exit 75 \[seconds, or ms, s, m, h, d; 0s to 60m\] \[default\: 10s\]]:TIME:_default' \
'--sync-interval-seconds=[A \`written\` batch is synced and in its lot file at the latest after this time \[seconds, or ms, s, m, h, d; 1ms to 60s\] \[default\: 1s\]]:TIME:_default' \
'--checkpoint-interval-seconds=[Time between checkpoints while there is something to do \[seconds, or ms, s, m, h, d; 10ms to 60m\] \[default\: 30s\]]:TIME:_default' \
'--segment-bytes=[Size of one journal segment; several are on disk at any time \[bytes, B, KB, MB, GB, KiB, MiB or GiB; 256KiB to 1GiB\] \[default\: 32MiB\]]:SIZE:_default' \
'--max-open-lots=[Lot files held open at once; lowered to what the limit of open files leaves \[a number; 2 to 1000000\] \[default\: 16384\]]:N:_default' \
'--session-memory-bytes=[Memory for the table of sessions; when it is full a new session is answered \`busy\` \[bytes, B, KB, MB, GB, KiB, MiB or GiB; 64KiB to 64GiB\] \[default\: 256MiB\]]:SIZE:_default' \
'--rotate-bytes=[A lot file that has grown to this size is moved to archive/; 0 for never \[bytes, B, KB, MB, GB, KiB, MiB or GiB; 0B to 1048576GiB\] \[default\: 0B\]]:SIZE:_default' \
'--rotate-age-seconds=[A lot file whose first record is older than this is moved to archive/; looked at at the start, as often, and every 10 minutes at least; 0 for never \[seconds, or ms, s, m, h, d; 0s to 52560000m\] \[default\: 0s\]]:TIME:_default' \
'--archive-compress=[Archived files are compressed in the background with this level of zstd; 0 for not at all \[a number; 0 to 19\] \[default\: 0\]]:N:_default' \
'--retain-age-seconds=[Archived files that were last written so long ago are removed, with their records, those of sealed lots apart; 0 for never \[seconds, or ms, s, m, h, d; 0s to 52560000m\] \[default\: 0s\]]:TIME:_default' \
'--retain-bytes=[While archived files take more than this the oldest are removed, with their records, those of sealed lots apart; 0 for never \[bytes, B, KB, MB, GB, KiB, MiB or GiB; 0B to 1048576GiB\] \[default\: 0B\]]:SIZE:_default' \
'--config=[TOML file with any of these settings, underscores for dashes \[environment\: LOTLOGD_CONFIG\]]:FILE:_default' \
'--check[Check the configuration and what a start would touch, change nothing; exit 0 or 78; with -q say only what is wrong]' \
'--print-config[Print the settings in force as a TOML file that --config accepts]' \
'*-v[Log more; twice\: yet more]' \
'*--verbose[Log more; twice\: yet more]' \
'*-q[Log less; twice\: only errors]' \
'*--quiet[Log less; twice\: only errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'-V[Print version]' \
'--version[Print version]' \
&& ret=0
}

(( $+functions[_lotlogd_commands] )) ||
_lotlogd_commands() {
    local commands; commands=()
    _describe -t commands 'lotlogd commands' commands "$@"
}

if [ "$funcstack[1]" = "_lotlogd" ]; then
    _lotlogd "$@"
else
    compdef _lotlogd lotlogd
fi
