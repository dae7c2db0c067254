# Makes this folder anew, with the code of version 0.1.0; see README.md.
#   OLD=<checkout of 0.1.0> PYTHON=<python with its dependencies> bash make.sh
set -eu
cd "$(dirname "$0")"
export PYTHONPATH=$OLD PATH=$PATH:/usr/sbin
WATCHED=$(mktemp -d)
agent() { "$PYTHON" -m agent "$@"; }
calibrate() { "$PYTHON" -c "from calibration.cli import main; main()" "$@"; }

"$PYTHON" draw.py
calibrate fit good --out bundle --size 64x64 --dimensions 8 --roi 8,4,40,40 --align 4 --ignore 35,21,8,6 \
    --same-part 'part(\d+)' --threads 1

# versions.json has whole paths: those of a station in /srv/washers, as it might be.
ln -s "$PWD" /srv/washers
station=/srv/washers/station.yaml first=/srv/washers/first.yaml

# The first day, with a broker: learn on, back, forth again, another threshold; no pictures are kept.
sed 's,source: ./frames,source: ./later,; s,frames_per_s: 4,frames_per_s: 40,; /^archive:/,/^$/s,enabled: true,enabled: false,' \
    $station > $first
printf 'user root\nlistener 1883 127.0.0.1\nallow_anonymous true\n' > "$WATCHED/mosquitto.conf"
mosquitto -c "$WATCHED/mosquitto.conf" > "$WATCHED/mosquitto.log" 2>&1 & broker=$!
"$PYTHON" -m agent run --config $first 2> "$WATCHED/first.log" & running=$!
while ! [ -S state/control.sock ]; do sleep 0.1; done
agent recalibrate --config $first --mode full --reason "new lamp"
agent command rollback --config $first
agent command rollback --config $first
agent command threshold 120 --config $first
kill -TERM $running; wait $running
kill -TERM $broker; wait $broker || true
rm first.yaml

# The last seconds, without a broker: killed in the second round, when two alerts are active.
"$PYTHON" -m agent run --config $station 2> "$WATCHED/last.log" & running=$!
"$PYTHON" - <<'PY'
import json, pathlib, time

def active() -> int:
    path = pathlib.Path("state/active_alert.json")
    return len(json.loads(path.read_text())) if path.exists() else 0

for count in (2, 0, 2):
    while active() != count:
        time.sleep(0.01)
time.sleep(0.2)
PY
kill -KILL $running; wait $running || true
result=$(agent archive list --config $station --class not_ok --limit 1 --json | sed 's/.*"resultId":"\([0-9a-f]*\)".*/\1/')
agent archive mark "$result" defect --by "M. Bauer" --config $station

# Smaller: the logs of SQLite into their files, without the room set aside; what is binary into one archive.
"$PYTHON" - <<'PY'
import sqlite3

for name in ("outbox.sqlite", "sparkplug.sqlite", "archive/index.sqlite"):
    database = sqlite3.connect(f"state/{name}")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute("VACUUM")
    database.close()
PY
(
    cd state
    packed="bundles outbox.sqlite sparkplug.sqlite archive/index.sqlite"
    XZ_OPT=-9e tar --sort=name --owner=0 --group=0 --numeric-owner -cJf packed.tar.xz $packed
    rm -r $packed lock control.sock
)
rm -r good later /srv/washers "$WATCHED"
