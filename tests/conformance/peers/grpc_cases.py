"""gRPC's own server behind the proxy and its own client before it: what each kind of call promises.

`grpc_cases.py serve` says where it listens; `grpc_cases.py ask ADDRESS` prints how many cases there are, and how many passed.
"""

import concurrent.futures
import sys
import threading
import time

import grpc

SERVICE = "conformance.Echo"
left = threading.Event()


def unary(message, context):
    fields = dict(context.invocation_metadata())
    context.send_initial_metadata([("x-begun", fields.get("x-said", "nothing"))])
    context.set_trailing_metadata([("x-ended", "well"), ("x-bytes-bin", b"\0\xff")])
    if message == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: 100 % no")
    if message == b"sleep":
        time.sleep(5)
    if message == b"left?":
        return b"yes" if left.is_set() else b"no"
    return message


def to_many(message, context):
    for n in range(int(message)):
        yield b"%d" % n


def to_one(messages, context):
    return b"%d" % sum(len(message) for message in messages)


def chat(messages, context):
    context.add_callback(left.set)
    for message in messages:
        yield message


def serve():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(64), options=[("grpc.max_receive_message_length", -1)])
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ToMany": grpc.unary_stream_rpc_method_handler(to_many),
        "ToOne": grpc.stream_unary_rpc_method_handler(to_one),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


def ask(address):
    channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
    one = channel.unary_unary(f"/{SERVICE}/Unary")
    many = channel.unary_stream(f"/{SERVICE}/ToMany")
    up = channel.stream_unary(f"/{SERVICE}/ToOne")
    both = channel.stream_stream(f"/{SERVICE}/Chat")

    def metadata_both_ways():
        answer, call = one.with_call(b"hello", metadata=[("x-said", "something")], timeout=10)
        begun, ended = dict(call.initial_metadata()), dict(call.trailing_metadata())
        assert (answer, begun["x-begun"], ended["x-ended"], ended["x-bytes-bin"]) == (b"hello", "something", "well", b"\0\xff")

    def an_error_with_its_words():
        try:
            one(b"fail", timeout=10)
        except grpc.RpcError as error:
            assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not now: 100 % no"), error
            assert dict(error.trailing_metadata())["x-ended"] == "well"
        else:
            raise AssertionError("no error")

    def a_deadline():
        begun = time.monotonic()
        try:
            one(b"sleep", timeout=0.3)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        assert time.monotonic() - begun < 3

    def an_unknown_method():
        try:
            channel.unary_unary(f"/{SERVICE}/Nothing")(b"", timeout=10)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error

    def an_empty_message():
        assert one(b"", timeout=10) == b""

    def a_large_message():
        large = b"x" * 8_000_000
        assert len(one(large, timeout=30)) == len(large)

    def a_compressed_message():
        assert one(b"y" * 100_000, timeout=10, compression=grpc.Compression.Gzip) == b"y" * 100_000

    def many_answers():
        assert [int(n) for n in many(b"5000", timeout=30)] == list(range(5000))

    def no_answer_at_all():
        assert list(many(b"0", timeout=10)) == []

    def many_questions():
        assert up((b"x" * 1000 for _ in range(3000)), timeout=30) == b"3000000"

    def no_question_at_all():
        assert up(iter(()), timeout=10) == b"0"

    def questions_and_answers_in_turn():
        go_on = threading.Semaphore(1)

        def questions():
            for n in range(200):
                go_on.acquire()
                yield b"%d" % n

        for n, answer in enumerate(both(questions(), timeout=30)):
            assert answer == b"%d" % n
            go_on.release()
        assert n == 199

    def a_call_that_is_taken_back():
        ending = threading.Event()

        def questions():
            yield b"one"
            ending.wait(10)

        call = both(questions(), timeout=30)
        assert next(call) == b"one"
        left_before = one(b"left?", timeout=10)
        call.cancel()
        ending.set()
        deadline = time.monotonic() + 10
        while one(b"left?", timeout=10) != b"yes":
            assert time.monotonic() < deadline, f"the server was not told ({left_before})"
            time.sleep(0.05)

    def many_at_once():
        calls = [one.future(b"%d" % n, timeout=30) for n in range(500)]
        assert [call.result() for call in calls] == [b"%d" % n for n in range(500)]

    def many_calls_taken_back():
        for _ in range(150):
            one.future(b"sleep", timeout=10).cancel()
        assert one(b"still here", timeout=10) == b"still here"

    cases = [metadata_both_ways, an_error_with_its_words, a_deadline, an_unknown_method, an_empty_message, a_large_message,
             a_compressed_message, many_answers, no_answer_at_all, many_questions, no_question_at_all,
             questions_and_answers_in_turn, a_call_that_is_taken_back, many_at_once, many_calls_taken_back]
    passed = 0
    for case in cases:
        try:
            case()
            passed += 1
        except Exception as error:  # whatever went wrong, the others go on
            print(f"{case.__name__}: {error!r}", file=sys.stderr)
    print(len(cases), passed)


if sys.argv[1] == "serve":
    serve()
else:
    ask(sys.argv[2])
