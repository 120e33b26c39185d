"""`python -m sandbox`: what the scripts of the same names open."""

import argparse
import sys

from config.env import BadEnvironment
from sandbox import demo, services
from sandbox.errors import SandboxError
from sandbox.processes import end_in_good_order
from sandbox.stack import stack_of_environment
from sandbox.steps import say, step


def up() -> int:
    """Bring the sandbox up in the foreground; Ctrl-C stops all of it."""
    stack = stack_of_environment()
    stack.require_free_port()
    started = services.start()
    try:
        with step("database schema"):
            stack.manage("migrate", "--verbosity", "0")
        return stack.run(services.own_servers())
    finally:
        services.stop(started)


def down() -> None:
    """Stop a sandbox that was left behind."""
    processes = stack_of_environment().stop_left_behind()
    say(
        f"  {processes} processes of web, worker and beat stopped"
        if processes
        else "  web, worker and beat did not run"
    )
    if not services.stop_all():
        say("  no server ran")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="sandbox", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("demo").add_argument("--keep", action="store_true", help="stay up, and print the addresses")
    verbs.add_parser("up")
    verbs.add_parser("down")
    verbs.add_parser("processes", help="web, worker and beat alone, on servers that run")
    action = verbs.add_parser("services")
    action.add_argument("action", choices=("prepare", "start", "stop", "status"))
    action.add_argument("--with-pgbouncer", action="store_true", help="start PgBouncer too")
    return parser.parse_args()


def main() -> int:
    """Do what the command line asks; the exit status is 1 for what is missing or in the way, 2 for misuse."""
    arguments = parse()
    match arguments.verb:
        case "demo":
            demo.demo(keep=arguments.keep)
        case "up":
            return up()
        case "down":
            down()
        case "processes":
            return stack_of_environment().run([])
        case "services":
            match arguments.action:
                case "prepare":
                    services.prepare()
                case "start":
                    services.start(with_pgbouncer=arguments.with_pgbouncer)
                case "stop":
                    services.stop_all()
                case "status":
                    return 0 if services.print_status() else 1
    return 0


if __name__ == "__main__":
    end_in_good_order()
    try:
        sys.exit(main())
    except SandboxError as error:
        sys.exit(f"\n{error}")
    except BadEnvironment as error:
        print(error, file=sys.stderr)
        sys.exit(2)
