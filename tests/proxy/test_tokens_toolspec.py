from typing import Any

from cellmeter_proxy.tokens.toolspec import Tool, typescript


def tool(name: str, parameters: dict[str, Any], description: str = "") -> Tool:
    return Tool(name=name, description=description, parameters=parameters, definition="{}")


def test_tools_are_a_namespace_of_typescript_types() -> None:
    weather = tool(
        "get_current_weather",
        {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The city"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "array", "items": {"type": "integer"}},
                "at": {"type": "object", "properties": {"lat": {"type": "number", "description": "unseen"}}},
                "limit": {"type": ["integer", "null"]},
                "where": {"anyOf": [{"type": "string"}, {"type": "boolean"}]},
                "extra": {"$ref": "#/$defs/x"},
            },
            "required": ["location", 7],
        },
        description="Get the weather",
    )

    assert typescript([weather, tool("now", {})]) == (
        "namespace functions {\n"
        "\n"
        "// Get the weather\n"
        "type get_current_weather = (_: {\n"
        "// The city\n"
        "location: string,\n"
        'unit?: "celsius" | "fahrenheit",\n'
        "days?: number[],\n"
        "at?: {\n"
        "  lat?: number,\n"
        "},\n"
        "limit?: number | null,\n"
        "where?: string | boolean,\n"
        "extra?: any,\n"
        "}) => any;\n"
        "\n"
        "type now = () => any;\n"
        "\n"
        "} // namespace functions"
    )


def test_a_schema_that_nests_without_end_is_cut_off() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(300):
        schema = {"type": ["array", "array", "object"], "items": schema, "properties": {}}

    text = typescript([tool("deep", {"properties": {"x": schema}})])

    assert "any" in text
    assert len(text) < 1_000


def test_every_part_of_a_schema_is_written_once_however_it_repeats_its_type() -> None:
    leaves = 0

    def branch(depth: int) -> dict[str, Any]:
        nonlocal leaves
        if depth == 0:
            leaves += 1
            return {"enum": ["leaf"]}
        return {"type": ["array", "object"] * 9, "items": branch(depth - 1), "properties": {"p": branch(depth - 1)}}

    text = typescript([tool("wide", {"properties": {"x": branch(8)}})])

    assert text.count("leaf") == leaves == 256
