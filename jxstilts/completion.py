"""Shell completion: a script for bash or zsh, made of the commands' options, that needs nothing at run time."""

import shlex

from jxstilts import arguments
from jxstilts.runtime import InputError, suggest

SHELLS = ("bash", "zsh")
HEAD = {
    "bash": '# jxstilts, completed in bash: put  eval "$(jxstilts completion bash)"  into ~/.bashrc\n',
    "zsh": (
        '# jxstilts, completed in zsh: put  eval "$(jxstilts completion zsh)"  into ~/.zshrc\n'
        "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"
    ),
}
BODY = """_jxstilts() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} words="" files=-f
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=( $(compgen -W {commands} -- "$current") )
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "$current" in
    -*=*) COMPREPLY=( $(compgen -P "${{current%%=*}}=" -f -- "${{current#*=}}") ) ;;
    -*) COMPREPLY=( $(compgen -W "$words --help" -- "$current") ) ;;
    *) COMPREPLY=( $(compgen $files -W "$words" -- "$current") ) ;;
  esac
  case "${{COMPREPLY[0]}}" in *=) compopt -o nospace 2>/dev/null ;; esac
}}
complete -o filenames -F _jxstilts jxstilts
"""


class _Flags(list):
    """Takes the place of a parser, and keeps the options that are added to it, as they are typed."""

    def add_argument(self, *names: str, action: str = "store", **about) -> None:
        self += [name + "=" * (action == "store") for name in names if name.startswith("--")]


def script(shell: str) -> str:
    """Returns the script. Raises InputError for another shell."""
    if shell not in SHELLS:
        raise InputError(suggest("shell", shell, SHELLS))
    cases = []
    for name in arguments.HELP:
        words = _Flags(["--config="] if name in arguments.TAKE_CONFIG else ())
        arguments.OPTIONS.get(name, lambda parser: None)(words)
        choices = {"new": arguments.KINDS, "completion": SHELLS}.get(name, ())
        files = ' files=""' * bool(choices)
        cases.append(f"    {name}) words={shlex.quote(' '.join([*words, *choices]))}{files} ;;")
    names = shlex.quote(" ".join([*arguments.HELP, "--help", "--version"]))
    return HEAD[shell] + BODY.format(commands=names, cases="\n".join(cases))
