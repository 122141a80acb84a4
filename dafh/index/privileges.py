"""What the role of DAFH's user may do in Milvus: all that the index needs, and no more.

The administrator grants each for every collection (``*``) of the database that DAFH works in; the
tests run as a user with this role.
"""

from __future__ import annotations

#: Kind of object and privilege, as Milvus names them.
PRIVILEGES = (
    ("Global", "CreateCollection"),
    ("Global", "DropCollection"),
    ("Global", "DescribeCollection"),
    ("Global", "ShowCollections"),
    ("Global", "CreateAlias"),
    ("Global", "DropAlias"),
    ("Global", "DescribeAlias"),
    ("Global", "ListAliases"),
    ("Global", "ListDatabases"),
    ("Collection", "CreateIndex"),
    ("Collection", "DropIndex"),
    ("Collection", "IndexDetail"),
    ("Collection", "GetLoadState"),
    ("Collection", "GetLoadingProgress"),
    ("Collection", "Load"),
    ("Collection", "Release"),
    ("Collection", "Insert"),
    ("Collection", "Upsert"),
    ("Collection", "Delete"),
    ("Collection", "Search"),
    ("Collection", "Query"),
    ("Collection", "Flush"),
    ("Collection", "GetFlushState"),
    ("Collection", "ShowPartitions"),
)
