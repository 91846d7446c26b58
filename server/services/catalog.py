"""CatalogService: which entities there are."""

from __future__ import annotations

from typing import Any

from dataops.v1 import catalog_pb2_grpc
from dataops.v1.catalog_pb2 import GetEntityRequest, GetEntityResponse, ListEntitiesRequest, ListEntitiesResponse

from engine.paging import by_name
from engine.resources import Resources
from server.caller import current_caller
from server.convert.catalog import entity_to_pb, uncovered_to_pb
from server.convert.common import page_of, paging_of
from server.offload import Offload

READ = "catalog.read"


class CatalogService(catalog_pb2_grpc.CatalogServiceServicer):
    """Shows a caller the entities that its roles let it read."""

    def __init__(self, resources: Resources, offload: Offload) -> None:
        self._catalogs = resources.catalogs
        self._offload = offload

    async def ListEntities(self, request: ListEntitiesRequest, context: Any) -> ListEntitiesResponse:
        caller = current_caller(context)
        catalog = await self._offload.call(self._catalogs.load)
        wanted = [e for e in catalog.entities() if request.group in ("", e.group) and caller.may(READ, e.name)]
        page = by_name(wanted, paging_of(request, caller), lambda entity: entity.name)
        entities, token = page_of(page, lambda entity: entity_to_pb(entity, catalog, fields=False))
        first = not request.page_token
        return ListEntitiesResponse(
            entities=entities, next_page_token=token, uncovered=uncovered_to_pb(catalog) if first else ()
        )

    async def GetEntity(self, request: GetEntityRequest, context: Any) -> GetEntityResponse:
        current_caller(context).require(READ, request.entity)
        catalog = await self._offload.call(self._catalogs.load)
        return GetEntityResponse(entity=entity_to_pb(catalog.entity(request.entity), catalog, fields=True))
