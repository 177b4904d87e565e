# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_lotlog_global_optspecs
    string join \n h/help V/version
end

function __fish_lotlog_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_lotlog_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_lotlog_using_subcommand
    set -l cmd (__fish_lotlog_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c lotlog -n "__fish_lotlog_needs_command" -s h -l help -d 'Print help'
complete -c lotlog -n "__fish_lotlog_needs_command" -s V -l version -d 'Print version'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "send" -d 'Send items (CSV, JSONL) or ready request lines to the daemon'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "status" -d 'Show how the daemon is doing'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "top" -d 'Show how the daemon is doing, live'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "sync" -d 'Wait until everything the daemon accepted is on disk and in the lot files'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "lots" -d 'List the lots: records, bytes, time of the last record'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "cat" -d 'Print a lot\'s records'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "tail" -d 'Print a lot\'s last records, and follow it'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "reload" -d 'Have the daemon reopen the lot files, and wait for it'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "rotate" -d 'Have the daemon move lot files into the archive, and wait for it'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "seal" -d 'Have the daemon close a lot for good'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "verify" -d 'Say what is wrong with a data directory, if anything is'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "bench" -d 'Measure a daemon with the canonical workload'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "completions" -d 'Print a completion script for a shell'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "man" -d 'Print a man page (roff)'
complete -c lotlog -n "__fish_lotlog_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c lotlog -n "__fish_lotlog_using_subcommand send" -l lot -d 'Lot of the items [default: the context\'s lot_id, else the lot `unassigned`]' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand send" -l context -d 'A value of the context; JSON where it is JSON (1.25, true, {"sims":100}), else text. May be given again' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand send" -l context-json -d 'A file with the context, one JSON object; --context and --lot go before it' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand send" -l batch-size -d 'Items in a batch, at most (a batch is also closed at 4 MiB)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand send" -l ack -d 'What an acknowledgement promises: synced or written [default: the daemon\'s setting]' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand send" -l format -d 'How the items are written [default: by the file\'s name, else by the first byte]' -r -f -a "csv\t'A header and one item a row; an empty cell is a missing value'
jsonl\t'One JSON object a line'"
complete -c lotlog -n "__fish_lotlog_using_subcommand send" -l session -d 'Session name, to go on where an earlier run with the same input and options gave up [default: a new UUID]' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand send" -l spool -d 'Deliver what a client has spooled in this directory while the daemon was away, in order and once' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand send" -l socket -d 'The daemon\'s socket [default: $XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system\'s temporary directory]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand send" -l timeout -d 'Longest wait for the daemon: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand send" -l requests -d 'The input is request lines of the protocol, each sent as it is; those with session and seq are sent again after a broken connection, the others are then reported as unknown'
complete -c lotlog -n "__fish_lotlog_using_subcommand send" -l json -d 'Summary as one JSON object on standard output'
complete -c lotlog -n "__fish_lotlog_using_subcommand send" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lotlog -n "__fish_lotlog_using_subcommand status" -l wait -d 'Wait so long for a daemon that is not there yet or still recovering (units ms, s, m, h)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand status" -l socket -d 'The daemon\'s socket [default: $XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system\'s temporary directory]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand status" -l timeout -d 'Longest wait for the daemon: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand status" -l json -d 'The daemon\'s answer as it came: one JSON object'
complete -c lotlog -n "__fish_lotlog_using_subcommand status" -s h -l help -d 'Print help'
complete -c lotlog -n "__fish_lotlog_using_subcommand top" -l interval -d 'Time between two looks (units ms, s, m)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand top" -s n -l count -d 'End after so many looks' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand top" -l socket -d 'The daemon\'s socket [default: $XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system\'s temporary directory]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand top" -l timeout -d 'Longest wait for the daemon: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand top" -s h -l help -d 'Print help'
complete -c lotlog -n "__fish_lotlog_using_subcommand sync" -l socket -d 'The daemon\'s socket [default: $XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system\'s temporary directory]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand sync" -l timeout -d 'Longest wait for the daemon: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand sync" -l json -d 'The daemon\'s answer as it came: one JSON object'
complete -c lotlog -n "__fish_lotlog_using_subcommand sync" -s h -l help -d 'Print help'
complete -c lotlog -n "__fish_lotlog_using_subcommand lots" -l data-dir -d 'The daemon\'s data directory [default: asked from the daemon; without one $XDG_STATE_HOME/lotlog, else ~/.local/state/lotlog]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand lots" -l socket -d 'The daemon\'s socket [default: $XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system\'s temporary directory]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand lots" -l timeout -d 'Longest wait for the daemon: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand lots" -l json -d 'One JSON object on standard output'
complete -c lotlog -n "__fish_lotlog_using_subcommand lots" -s h -l help -d 'Print help'
complete -c lotlog -n "__fish_lotlog_using_subcommand cat" -l data-dir -d 'The daemon\'s data directory [default: asked from the daemon; without one $XDG_STATE_HOME/lotlog, else ~/.local/state/lotlog]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand cat" -l socket -d 'The daemon\'s socket [default: $XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system\'s temporary directory]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand cat" -l timeout -d 'Longest wait for the daemon: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand cat" -s h -l help -d 'Print help'
complete -c lotlog -n "__fish_lotlog_using_subcommand tail" -s n -l lines -d 'How many records to begin with' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand tail" -l data-dir -d 'The daemon\'s data directory [default: asked from the daemon; without one $XDG_STATE_HOME/lotlog, else ~/.local/state/lotlog]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand tail" -l socket -d 'The daemon\'s socket [default: $XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system\'s temporary directory]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand tail" -l timeout -d 'Longest wait for the daemon: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand tail" -s f -l follow -d 'Go on with what is added, until interrupted; follows through rotation, and waits for a lot that is not there yet'
complete -c lotlog -n "__fish_lotlog_using_subcommand tail" -s h -l help -d 'Print help'
complete -c lotlog -n "__fish_lotlog_using_subcommand reload" -l socket -d 'The daemon\'s socket [default: $XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system\'s temporary directory]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand reload" -l timeout -d 'Longest wait for the daemon: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand reload" -l json -d 'The daemon\'s answer as it came: one JSON object'
complete -c lotlog -n "__fish_lotlog_using_subcommand reload" -s h -l help -d 'Print help'
complete -c lotlog -n "__fish_lotlog_using_subcommand rotate" -l socket -d 'The daemon\'s socket [default: $XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system\'s temporary directory]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand rotate" -l timeout -d 'Longest wait for the daemon: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand rotate" -l all -d 'Every lot'
complete -c lotlog -n "__fish_lotlog_using_subcommand rotate" -l json -d 'The daemon\'s answer as it came: one JSON object'
complete -c lotlog -n "__fish_lotlog_using_subcommand rotate" -s h -l help -d 'Print help'
complete -c lotlog -n "__fish_lotlog_using_subcommand seal" -l socket -d 'The daemon\'s socket [default: $XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system\'s temporary directory]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand seal" -l timeout -d 'Longest wait for the daemon: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand seal" -l json -d 'The daemon\'s answer as it came: one JSON object'
complete -c lotlog -n "__fish_lotlog_using_subcommand seal" -s h -l help -d 'Print help'
complete -c lotlog -n "__fish_lotlog_using_subcommand verify" -l data-dir -d 'The daemon\'s data directory [default: asked from the daemon; without one $XDG_STATE_HOME/lotlog, else ~/.local/state/lotlog]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand verify" -l socket -d 'The daemon\'s socket [default: $XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system\'s temporary directory]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand verify" -l timeout -d 'Longest wait for the daemon: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand verify" -l json -d 'One JSON object instead of text'
complete -c lotlog -n "__fish_lotlog_using_subcommand verify" -l strict -d 'Exit 65 for notes too'
complete -c lotlog -n "__fish_lotlog_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lotlog -n "__fish_lotlog_using_subcommand bench" -l dir -d 'Where the temporary directory is made [default: the system\'s temporary directory]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand bench" -l producers -d 'Producers, each with a connection and a session of its own' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand bench" -l items -d 'Items in a batch, of about 425 bytes each' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand bench" -l lots -d 'Lots' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand bench" -l seconds -d 'How long each durability is measured (units ms, s, m, h; a bare number is seconds)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand bench" -l batches -d 'Send so many batches per producer, however long it takes, instead of --seconds' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand bench" -l outstanding -d 'Batches that a producer has sent and not yet acknowledged, at most' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand bench" -l ack -d 'Measure only this durability: synced or written [default: both]' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand bench" -l socket -d 'The daemon\'s socket [default: $XDG_RUNTIME_DIR/lotlog.sock, else for root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the system\'s temporary directory]' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand bench" -l timeout -d 'Longest wait for the daemon: for an answer, and for it to come back (units ms, s, m, h; a bare number is seconds)' -r
complete -c lotlog -n "__fish_lotlog_using_subcommand bench" -l running -d 'Measure the daemon that runs at the usual socket; its lots BENCH_LOT_0000... are written'
complete -c lotlog -n "__fish_lotlog_using_subcommand bench" -l json -d 'One JSON object on standard output'
complete -c lotlog -n "__fish_lotlog_using_subcommand bench" -s h -l help -d 'Print help'
complete -c lotlog -n "__fish_lotlog_using_subcommand completions" -s h -l help -d 'Print help'
complete -c lotlog -n "__fish_lotlog_using_subcommand man" -l all -d 'Write all pages, each to a file of its name in this directory' -r -F
complete -c lotlog -n "__fish_lotlog_using_subcommand man" -s h -l help -d 'Print help'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "send" -d 'Send items (CSV, JSONL) or ready request lines to the daemon'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "status" -d 'Show how the daemon is doing'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "top" -d 'Show how the daemon is doing, live'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "sync" -d 'Wait until everything the daemon accepted is on disk and in the lot files'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "lots" -d 'List the lots: records, bytes, time of the last record'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "cat" -d 'Print a lot\'s records'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "tail" -d 'Print a lot\'s last records, and follow it'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "reload" -d 'Have the daemon reopen the lot files, and wait for it'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "rotate" -d 'Have the daemon move lot files into the archive, and wait for it'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "seal" -d 'Have the daemon close a lot for good'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "verify" -d 'Say what is wrong with a data directory, if anything is'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "bench" -d 'Measure a daemon with the canonical workload'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "completions" -d 'Print a completion script for a shell'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "man" -d 'Print a man page (roff)'
complete -c lotlog -n "__fish_lotlog_using_subcommand help; and not __fish_seen_subcommand_from send status top sync lots cat tail reload rotate seal verify bench completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c lotlogd -l data-dir -d 'Directory of the lot files and the journal; made if it is missing [a path] [default: $STATE_DIRECTORY, else $XDG_STATE_HOME/lotlog, else ~/.local/state/lotlog]' -r
complete -c lotlogd -l socket -d 'Unix socket to listen on, also instead of an inherited one; LOTLOG_SOCKET names it for daemon and clients alike [a path] [default: the socket inherited from systemd, else $RUNTIME_DIRECTORY/lotlog.sock, else $XDG_RUNTIME_DIR/lotlog.sock, else as root /run/lotlog/lotlog.sock, else lotlog-UID/lotlog.sock in the temp directory]' -r
complete -c lotlogd -l socket-mode -d 'Mode of the socket file: who may connect at all [octal; 0000 to 0777] [default: 0660]' -r
complete -c lotlogd -l socket-owner -d 'User, by name or number, that owns the socket file; only root can give it to another than its own [a name or number] [default: the daemon\'s]' -r
complete -c lotlogd -l socket-group -d 'Group, by name or number, of the socket file: one that the daemon is a member of, unless it is root [a name or number] [default: the daemon\'s]' -r
complete -c lotlogd -l durability -d 'What an acknowledgement promises unless the request says: `synced` survives power loss, `written` any death of the daemon [synced or written] [default: synced]' -r
complete -c lotlogd -l allow-users -d 'Users, by name or number, that may connect; with both lists empty all whom the socket\'s mode lets in [names or numbers, separated by commas] [default: none]' -r
complete -c lotlogd -l allow-groups -d 'Groups, by name or number, whose members may connect [names or numbers, separated by commas] [default: none]' -r
complete -c lotlogd -l metrics -d 'Where to serve Prometheus metrics (/metrics, /healthz) over HTTP, to anyone who can connect: 127.0.0.1:9464, or the path of a Unix socket; without it there is no network code at work [an IP address and port, or a path with a slash] [default: none]' -r
complete -c lotlogd -l log-format -d 'Form of the daemon\'s own log on stderr; `auto` is text, without timestamps on a terminal and under journald [auto, text or json] [default: auto]' -r
complete -c lotlogd -l log-level -d 'Least serious events of the daemon\'s own log; each -v shows more, each -q fewer; reread on SIGHUP [error, warn, info, debug or trace] [default: info]' -r
complete -c lotlogd -l max-line-bytes -d 'Longest request line, without its newline; beyond it `too_large`, and the connection is closed [bytes, B, KB, MB, GB, KiB, MiB or GiB; 1KiB to 256MiB] [default: 16MiB]' -r
complete -c lotlogd -l max-items -d 'Most items in a batch; beyond it `too_large` [a number; 1 to 100000000] [default: 100000]' -r
complete -c lotlogd -l max-context-bytes -d 'Longest context as it is written to a record; beyond it `too_large` [bytes, B, KB, MB, GB, KiB, MiB or GiB; 1KiB to 64MiB] [default: 64KiB]' -r
complete -c lotlogd -l max-batch-bytes -d 'Largest batch as records, its context copied into each; beyond it `too_large` [bytes, B, KB, MB, GB, KiB, MiB or GiB; 4KiB to 16GiB] [default: 256MiB]' -r
complete -c lotlogd -l max-nesting -d 'Deepest JSON nesting, the request object being level 1; beyond it `invalid_json` [a number; 4 to 120] [default: 64]' -r
complete -c lotlogd -l max-requests-in-flight -d 'Requests in flight on one connection; beyond it the daemon stops reading it for the time being [a number; 1 to 65536] [default: 256]' -r
complete -c lotlogd -l max-bytes-in-flight -d 'Bytes in flight over all connections; beyond it the daemon stops reading for the time being [bytes, B, KB, MB, GB, KiB, MiB or GiB; 64KiB to 64GiB] [default: 64MiB]' -r
complete -c lotlogd -l max-connections -d 'Connections; a further one is answered `busy` and closed [a number; 1 to 1000000] [default: 4096]' -r
complete -c lotlogd -l max-connections-per-user -d 'Connections of one user; a further one is answered `busy` and closed [a number; 1 to 1000000] [default: 4096]' -r
complete -c lotlogd -l max-bytes-in-flight-per-user -d 'Bytes in flight of one user while another one sends batches too, and 10 s more; beyond it the daemon stops reading that user\'s connections for the time being [bytes, B, KB, MB, GB, KiB, MiB or GiB; 16KiB to 64GiB] [default: 128KiB]' -r
complete -c lotlogd -l line-timeout-seconds -d 'A started line must get 16 KiB in this time; else `timeout`, and the connection is closed [seconds, or ms, s, m, h, d; 10ms to 60m] [default: 30s]' -r
complete -c lotlogd -l reply-timeout-seconds -d 'Replies must be read with some progress in this time; else the connection is closed [seconds, or ms, s, m, h, d; 10ms to 60m] [default: 30s]' -r
complete -c lotlogd -l drain-timeout-seconds -d 'How long open requests may take to finish after SIGTERM or SIGINT; beyond it exit 75 [seconds, or ms, s, m, h, d; 0s to 60m] [default: 10s]' -r
complete -c lotlogd -l sync-interval-seconds -d 'A `written` batch is synced and in its lot file at the latest after this time [seconds, or ms, s, m, h, d; 1ms to 60s] [default: 1s]' -r
complete -c lotlogd -l checkpoint-interval-seconds -d 'Time between checkpoints while there is something to do [seconds, or ms, s, m, h, d; 10ms to 60m] [default: 30s]' -r
complete -c lotlogd -l segment-bytes -d 'Size of one journal segment; several are on disk at any time [bytes, B, KB, MB, GB, KiB, MiB or GiB; 256KiB to 1GiB] [default: 32MiB]' -r
complete -c lotlogd -l max-open-lots -d 'Lot files held open at once; lowered to what the limit of open files leaves [a number; 2 to 1000000] [default: 16384]' -r
complete -c lotlogd -l session-memory-bytes -d 'Memory for the table of sessions; when it is full a new session is answered `busy` [bytes, B, KB, MB, GB, KiB, MiB or GiB; 64KiB to 64GiB] [default: 256MiB]' -r
complete -c lotlogd -l rotate-bytes -d 'A lot file that has grown to this size is moved to archive/; 0 for never [bytes, B, KB, MB, GB, KiB, MiB or GiB; 0B to 1048576GiB] [default: 0B]' -r
complete -c lotlogd -l rotate-age-seconds -d 'A lot file whose first record is older than this is moved to archive/; looked at at the start, as often, and every 10 minutes at least; 0 for never [seconds, or ms, s, m, h, d; 0s to 52560000m] [default: 0s]' -r
complete -c lotlogd -l archive-compress -d 'Archived files are compressed in the background with this level of zstd; 0 for not at all [a number; 0 to 19] [default: 0]' -r
complete -c lotlogd -l retain-age-seconds -d 'Archived files that were last written so long ago are removed, with their records, those of sealed lots apart; 0 for never [seconds, or ms, s, m, h, d; 0s to 52560000m] [default: 0s]' -r
complete -c lotlogd -l retain-bytes -d 'While archived files take more than this the oldest are removed, with their records, those of sealed lots apart; 0 for never [bytes, B, KB, MB, GB, KiB, MiB or GiB; 0B to 1048576GiB] [default: 0B]' -r
complete -c lotlogd -l config -d 'TOML file with any of these settings, underscores for dashes [environment: LOTLOGD_CONFIG]' -r
complete -c lotlogd -l check -d 'Check the configuration and what a start would touch, change nothing; exit 0 or 78; with -q say only what is wrong'
complete -c lotlogd -l print-config -d 'Print the settings in force as a TOML file that --config accepts'
complete -c lotlogd -s v -l verbose -d 'Log more; twice: yet more'
complete -c lotlogd -s q -l quiet -d 'Log less; twice: only errors'
complete -c lotlogd -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lotlogd -s V -l version -d 'Print version'
