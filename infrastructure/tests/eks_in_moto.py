"""moto 5.2 has the API of EKS but not its CloudFormation types. This module adds them: it hands each AWS::EKS resource of a
template, with its references resolved, to the API operation that CloudFormation would call. The parameters are checked
against AWS's own model of that operation; what moto has no backend for (add-ons, identities, access) ends there."""

import botocore.session
from botocore import xform_name
from botocore.validate import validate_parameters
from moto.core.common_models import CloudFormationModel
from moto.eks.models import eks_backends

OPERATIONS = {
    "AWS::EKS::Cluster": "CreateCluster",
    "AWS::EKS::Nodegroup": "CreateNodegroup",
    "AWS::EKS::Addon": "CreateAddon",
    "AWS::EKS::PodIdentityAssociation": "CreatePodIdentityAssociation",
    "AWS::EKS::AccessEntry": "CreateAccessEntry",
}
# What the API knows of a cluster and moto's backend does not.
UNKNOWN_TO_MOTO = {"accessConfig", "bootstrapSelfManagedAddons", "upgradePolicy"}

_api = botocore.session.get_session().get_service_model("eks")


def api_parameters(properties, shape):
    """Changes CloudFormation's spelling (DesiredSize, numbers as text) to the API's (desiredSize, 2). Keys of maps are data."""
    if shape.type_name == "structure":
        spelled = {key[0].lower() + key[1:]: value for key, value in properties.items()}
        return {
            key: api_parameters(value, shape.members[key]) if key in shape.members else value
            for key, value in spelled.items()
        }
    if shape.type_name == "list":
        return [api_parameters(item, shape.member) for item in properties]
    if shape.type_name == "integer":
        return int(properties)
    return properties


def _respelled(properties):
    """The one property that CloudFormation nests in another way than the API: which logs are kept."""
    if not (logs := properties.get("Logging")):
        return properties
    types = [it["Type"] for it in logs["ClusterLogging"]["EnabledTypes"]]
    return properties | {"Logging": {"clusterLogging": [{"types": types, "enabled": True}]}}


class Resource:
    """A resource as CloudFormation keeps it: the name that Ref gives, and the attributes of GetAtt."""

    def __init__(self, kind, parameters, made):
        self.type, self.parameters, self.made = kind, parameters, made
        self.physical_resource_id = parameters.get("name") or parameters.get("nodegroupName") or kind

    def is_created(self):
        return True

    def get_cfn_attribute(self, attribute):
        return {"Endpoint": self.made.endpoint, "Arn": self.made.arn}[attribute]


def _create(cls, resource_name, cloudformation_json, account_id, region_name, **_):
    operation = OPERATIONS[cls.cloudformation_type()]
    shape = _api.operation_model(operation).input_shape
    parameters = api_parameters(_respelled(cloudformation_json["Properties"]), shape)
    validate_parameters(parameters, shape)
    call = getattr(eks_backends[account_id][region_name], xform_name(operation), None)
    known = {xform_name(key): value for key, value in parameters.items() if key not in UNKNOWN_TO_MOTO}
    return Resource(cls.cloudformation_type(), parameters, call(**known) if call else None)


def teach():
    """Adds the resource types to moto. Call it before moto first reads a template."""
    for kind in OPERATIONS:
        type(
            kind.replace("::", ""),
            (CloudFormationModel,),
            {
                "cloudformation_name_type": staticmethod(lambda: ""),
                "cloudformation_type": staticmethod(lambda kind=kind: kind),
                "has_cfn_attr": classmethod(lambda cls, attribute: attribute in ("Endpoint", "Arn")),
                "create_from_cloudformation_json": classmethod(_create),
            },
        )
