"""Trim dumps of the genuine bindings to the names that edgekit may use, and write 8.5.2 from 8.6.1.

    python trim.py FOLDER_OF_DUMPS

A dump holds names, signatures and numbers of enum members of one wheel (`about.wheel` says which), made by importing
the wheel and reading what Python shows of it. 8.5.2 has no wheel: its file is 8.6.1's without what the binding
sources of the two tags differ in (`ABSENT_IN_8_5`). Running this again writes the same bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["ABSENT_IN_8_5", "ENUMS", "FUNCTIONS", "KEPT", "trimmed", "without"]

VERSIONS = ("8.6.1", "10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")
FUNCTIONS = ("get_nv_onnx_parser_version", "init_libnvinfer_plugins", "nptype", "volume")

# Kept whole: numbers of members are the point.
ENUMS = (
    "BuilderFlag",
    "CalibrationAlgoType",
    "DataType",
    "DeviceType",
    "EngineCapability",
    "ErrorCode",
    "ExecutionContextAllocationStrategy",
    "HardwareCompatibilityLevel",
    "LayerInformationFormat",
    "LayerType",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParserFlag",
    "PreviewFeature",
    "ProfilingVerbosity",
    "QuantizationFlag",
    "RuntimePlatform",
    "TacticSource",
    "TensorFormat",
    "TensorIOMode",
    "TensorLocation",
    "TilingOptimizationLevel",
)

CALIBRATOR = "__init__ get_algorithm get_batch get_batch_size read_calibration_cache write_calibration_cache"

KEPT = {
    name: tuple(names.split())
    for name, names in {
        "Builder": "__init__ build_serialized_network create_builder_config create_network create_optimization_profile "
        "is_network_supported logger max_DLA_batch_size max_threads num_DLA_cores platform_has_fast_fp16 "
        "platform_has_fast_int8 platform_has_tf32 reset",
        "Dims": "__init__ MAX_DIMS",
        "EngineInspector": "execution_context get_engine_information get_layer_information",
        "IBuilderConfig": "DLA_core add_optimization_profile avg_timing_iterations builder_optimization_level "
        "can_run_on_DLA clear_flag clear_quantization_flag create_timing_cache default_device_type engine_capability "
        "flags get_calibration_profile get_device_type get_flag get_memory_pool_limit get_preview_feature "
        "get_quantization_flag get_tactic_sources get_timing_cache hardware_compatibility_level int8_calibrator "
        "is_device_type_set max_aux_streams max_num_tactics num_optimization_profiles profile_stream "
        "profiling_verbosity progress_monitor quantization_flags reset reset_device_type runtime_platform "
        "set_calibration_profile set_device_type set_flag set_memory_pool_limit set_preview_feature "
        "set_quantization_flag set_tactic_sources set_timing_cache tiling_optimization_level",
        "ICudaEngine": "create_engine_inspector create_execution_context create_serialization_config "
        "device_memory_size device_memory_size_v2 engine_capability get_tensor_bytes_per_component "
        "get_tensor_components_per_element get_tensor_dtype get_tensor_format get_tensor_format_desc "
        "get_tensor_location get_tensor_mode get_tensor_name get_tensor_profile_shape get_tensor_shape "
        "get_tensor_vectorized_dim hardware_compatibility_level is_shape_inference_io name num_aux_streams "
        "num_io_tensors num_layers num_optimization_profiles profiling_verbosity refittable serialize "
        "serialize_with_config tactic_sources",
        "IExecutionContext": "active_optimization_profile all_binding_shapes_specified debug_sync engine "
        "enqueue_emits_profile execute_async_v3 get_max_output_size get_tensor_address get_tensor_shape "
        "get_tensor_strides infer_shapes name nvtx_verbosity persistent_cache_limit profiler report_to_profiler "
        "set_aux_streams set_input_shape set_optimization_profile_async set_tensor_address",
        "IHostMemory": "dtype nbytes",
        "IInt8Calibrator": CALIBRATOR,
        "IInt8EntropyCalibrator2": CALIBRATOR,
        "IInt8MinMaxCalibrator": CALIBRATOR,
        "ILayer": "get_input get_output get_output_type metadata name num_inputs num_outputs precision "
        "precision_is_set reset_precision set_output_type output_type_is_set reset_output_type type",
        "ILogger": "__init__ log",
        "INetworkDefinition": "flags get_flag get_input get_layer get_output has_implicit_batch_dimension name "
        "num_inputs num_layers num_outputs mark_output unmark_output",
        "IOptimizationProfile": "extra_memory_target get_shape set_shape",
        "IProfiler": "__init__ report_layer_time",
        "IProgressMonitor": "__init__ phase_finish phase_start step_complete",
        "ISerializationConfig": "clear_flag flags get_flag set_flag",
        "ITensor": "allowed_formats dtype dynamic_range get_dimension_name is_execution_tensor is_network_input "
        "is_network_output is_shape_tensor location name reset_dynamic_range set_dynamic_range shape",
        "ITimingCache": "combine reset serialize",
        "Logger": "__init__ log min_severity",
        "OnnxParser": "__init__ clear_errors clear_flag flags get_error get_flag get_used_vc_plugin_libraries "
        "num_errors parse parse_from_file set_builder_config set_flag supports_operator",
        "ParserError": "code desc file func line local_function_stack local_function_stack_size node node_name "
        "node_operator",
        "Runtime": "DLA_core __init__ deserialize_cuda_engine engine_host_code_allowed logger max_threads "
        "num_DLA_cores temporary_directory",
    }.items()
}
ENUMS_NESTED = ("SerializationFlag",)

# From the binding sources of the tags 8.5.2 and 8.6.1.
ABSENT_IN_8_5 = (
    "HardwareCompatibilityLevel",
    "OnnxParserFlag",
    "BuilderFlag.VERSION_COMPATIBLE",
    "BuilderFlag.EXCLUDE_LEAN_RUNTIME",
    "BuilderFlag.FP8",
    "DataType.FP8",
    "MemoryPoolType.TACTIC_DRAM",
    "IBuilderConfig.hardware_compatibility_level",
    "IBuilderConfig.builder_optimization_level",
    "IBuilderConfig.max_aux_streams",
    "ICudaEngine.hardware_compatibility_level",
    "ICudaEngine.num_aux_streams",
    "IExecutionContext.set_aux_streams",
    "ILayer.metadata",
    "LayerType.CAST",
    "LayerType.NORMALIZATION",
    "OnnxParser.clear_flag",
    "OnnxParser.flags",
    "OnnxParser.get_flag",
    "OnnxParser.get_used_vc_plugin_libraries",
    "OnnxParser.set_flag",
    "Runtime.engine_host_code_allowed",
    "Runtime.temporary_directory",
    "fp8",
)


def trimmed(dump: dict[str, Any]) -> dict[str, Any]:
    """The kept part of a dump, in its format."""
    classes: dict[str, Any] = {}
    for name in (*ENUMS, *ENUMS_NESTED):
        if name in dump["classes"]:
            classes[name] = {"enum": dict(sorted(dump["classes"][name]["enum"].items()))}
    for name, kept in KEPT.items():
        if name in dump["classes"]:
            found = dump["classes"][name]
            classes[name] = {key: found[key] for key in ("bases", "constants", "nested") if key in found}
            for part in ("methods", "properties"):
                classes[name][part] = {key: value for key, value in found.get(part, {}).items() if key in kept}
    return {
        "about": {key: dump["about"][key] for key in ("version", "wheel")},
        "classes": dict(sorted(classes.items())),
        "constants": dict(sorted(dump["constants"].items())),
        "functions": {name: dump["functions"][name] for name in FUNCTIONS},
    }


def without(api: dict[str, Any], absent: tuple[str, ...]) -> dict[str, Any]:
    """An API less some names.

    Raises:
        KeyError: A name that was not there.
    """
    made: dict[str, Any] = json.loads(json.dumps(api))
    for name in absent:
        owner, _, member = name.rpartition(".")
        if not owner:
            del (made["classes"] if name in made["classes"] else made["constants"])[name]
            continue
        parts = [part for part in made["classes"][owner].values() if member in part]
        if not parts:
            raise KeyError(name)
        del parts[0][member]
    return made


def _write(api: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(api, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main(folder: Path, target: Path) -> None:
    """Trim every dump of a folder."""
    for version in VERSIONS:
        api = trimmed(json.loads((folder / f"{version}.json").read_text(encoding="utf-8")))
        _write(api, target / f"{version}.json")
        if version == "8.6.1":
            older = without(api, ABSENT_IN_8_5)
            older["about"] = {"derived_from": "8.6.1", "version": "8.5.2.2", "wheel": ""}
            _write(older, target / "8.5.2.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent)
