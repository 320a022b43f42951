# The virtual environment with the Python peers. To be sourced at the top of the
# repository, by tests/run and tests/bench/run.

readonly venv=$PWD/tests/.venv
readonly requirements=tests/requirements.txt

root_do() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

# new_venv makes an empty virtual environment, also where Debian's Python
# lacks the module for it.
new_venv() {
  rm -rf "$venv"
  python3 -m venv "$venv" && return
  echo "python3 -m venv does not work here; trying to install it"
  rm -rf "$venv"
  if command -v apt-get >/dev/null; then
    root_do apt-get install -y python3-venv ||
      { root_do apt-get update && root_do apt-get install -y python3-venv; } || true
    python3 -m venv "$venv" && return
    rm -rf "$venv"
  fi
  python3 -m pip install --user virtualenv && python3 -m virtualenv "$venv"
}

# python_peers installs ZEO and ZODB unless the stamp says that it was done
# for these requirements and this Python.
python_peers() {
  command -v python3 >/dev/null || { echo "python3 is missing"; return 1; }
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "Python 3.11 or later is needed, this is $(python3 -V)"; return 1; }
  local stamp want
  stamp=$venv/stamp
  want=$(python3 -c 'import sys; print(sys.version)'; cat "$requirements")
  if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
    echo "up to date"
    return
  fi
  new_venv
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
  "$venv/bin/python" -m pip check
  printf '%s\n' "$want" >"$stamp"
}
