"""
Immich's users in Valkey, and the formula's own
===============================================

What they may do, and what they must not be able to do to others on the same server.
"""

LOGIN = "immich-formula"
# What a user needs to manage ACL users and the configuration and to end a script, and no key at all.
LOGIN_RULES = (
    "resetkeys resetchannels -@all +acl +config|get +config|set +config|rewrite +client|id +client|list +command +info"
    " +client|setinfo +ping +multi +exec +discard +script|kill +function|kill"
)

# Measured with Immich v3.0.3 on Valkey 8.1: sign-up, uploads, all queues, websocket, backup, and an
# empty ACL LOG. Rules count from left to right, so what takes away stands behind what gives.
RULES = (
    "~immich_bull:* resetchannels &socket.io#/#* &socket.io-request#/#* &socket.io-response#/#*"
    " -@all +@read +@write +@pubsub +ping +select +eval +evalsha"
    " -@dangerous -scan -randomkey -dbsize -function -move -copy -pubsub"
    " +pubsub|numsub +info +client|setname +client|setinfo +client|list"
)
# Came with Redis 7.2; where it is missing, libraries that try it go on without.
SETINFO = "client|setinfo"
# BullMQ, ioredis and @socket.io/redis-adapter, the libraries through which Immich speaks to Valkey, use these.
ALLOWS = [
    "PING",
    "SELECT",
    "INFO",
    "EVAL",
    "EVALSHA",
    "CLIENT SETNAME",
    "CLIENT SETINFO",
    "CLIENT LIST",
    "PUBSUB NUMSUB",
    ["HSET", "immich_bull:job", "field", "value"],
    ["HGETALL", "immich_bull:job"],
    ["ZADD", "immich_bull:job", "1", "member"],
    ["BZPOPMIN", "immich_bull:job", "1"],
    ["LPUSH", "immich_bull:job", "value"],
    ["XADD", "immich_bull:job", "*", "field", "value"],
    ["XREAD", "STREAMS", "immich_bull:job", "0"],
    ["DEL", "immich_bull:job"],
    ["PSUBSCRIBE", "socket.io#/#*"],
    ["SUBSCRIBE", "socket.io-request#/#"],
    ["SUBSCRIBE", "socket.io-response#/#"],
    ["PUBLISH", "socket.io#/#", "message"],
]
# What would harm, read or overhear others on the same server.
DENIES = [
    "FLUSHDB",
    "FLUSHALL",
    "SWAPDB",
    "KEYS",
    "SCAN",
    "RANDOMKEY",
    "DBSIZE",
    "CONFIG",
    "MONITOR",
    "DEBUG",
    "SHUTDOWN",
    "ACL",
    "MIGRATE",
    "RESTORE",
    "SORT",
    "MOVE",
    "COPY",
    "FUNCTION",
    "SCRIPT",
    "REPLICAOF",
    "MODULE",
    "SAVE",
    "BGSAVE",
    "PUBSUB CHANNELS",
    "CLIENT TRACKING",
    "CLIENT KILL",
    "CLIENT PAUSE",
    ["GET", "foreign"],
    ["SET", "foreign", "value"],
    ["DEL", "foreign"],
    ["SUBSCRIBE", "foreign"],
    ["PSUBSCRIBE", "*"],
    ["PUBLISH", "foreign", "message"],
]


def login_user(password_file):
    """The definition of the ACL user by which the formula logs in, with the path of the file that has its password."""
    return {"name": LOGIN, "password_file": password_file, "rules": LOGIN_RULES}


def fitted(users, server):
    """
    Users without what the formula gives them and a server before Redis 7.2 does not know.

    users
        List of users, as of ``immich_valkey.users`` or :py:func:`login_user`.
    server
        What ``valkey_acl.server`` returns.
    """
    if server["product"] != "Redis" or tuple(map(int, server["version"].split(".")[:2])) >= (7, 2):
        return users
    return [_without_setinfo(user) for user in users]


def _without_setinfo(user):
    fitting = dict(user)
    if isinstance(user.get("rules"), str):
        fitting["rules"] = " ".join(rule for rule in user["rules"].split(" ") if rule != f"+{SETINFO}")
    if user.get("allows"):
        fitting["allows"] = [command for command in user["allows"] if command != "CLIENT SETINFO"]
    return fitting
