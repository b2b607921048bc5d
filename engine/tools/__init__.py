"""What the model may call: tool specs, dispatch, approvals, and one module per built-in tool."""
