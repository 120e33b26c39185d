"""Start and stop the sandbox; scripts/demo, up, down and services call this."""

import argparse
import sys
from contextlib import ExitStack

from config.env import BadEnvironment
from sandbox import demo, services
from sandbox.errors import SandboxError
from sandbox.processes import end_in_good_order
from sandbox.stack import stack_of_environment
from sandbox.steps import say
from sandbox.system import start_servers


def up() -> int:
    """Run the sandbox in the foreground until Ctrl-C; return the exit status."""
    stack = stack_of_environment()
    with ExitStack() as started:
        start_servers(stack, started)
        return stack.run(services.own_servers())


def down() -> None:
    """Stop every process and server of the sandbox of this checkout."""
    processes = stack_of_environment().stop_left_behind()
    say(
        f"  stopped {processes} processes of web, worker and beat"
        if processes
        else "  web, worker and beat were not running"
    )
    if not services.stop_all():
        say("  no server was running")


def parse() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="sandbox", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    demo_parser = verbs.add_parser("demo", help="start everything, ingest the example data, show the pools, stop")
    demo_parser.add_argument("--keep", action="store_true", help="keep it running at the end, and print the addresses")
    verbs.add_parser("up", help="run servers, web, worker and beat in the foreground; Ctrl-C stops them")
    verbs.add_parser("down", help="stop every process and server of this checkout's sandbox")
    verbs.add_parser("processes", help="run only web, worker and beat in the foreground; the servers must be running")
    action = verbs.add_parser("services", help="install, start or stop only the servers, or print their status")
    action.add_argument("action", choices=("prepare", "start", "stop", "status"))
    action.add_argument(
        "--with-pgbouncer", action="store_true", help="start PgBouncer even if DB_POOL_STRATEGY does not use it"
    )
    return parser.parse_args()


def main() -> int:
    """Run the command; return its exit status: 1 if the sandbox cannot run, 2 for invalid arguments or variables."""
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
