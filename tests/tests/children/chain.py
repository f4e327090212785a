"""A chain of LangChain, as a model."""

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

heard = RunnableLambda(str.strip) | RunnableLambda(lambda text: AIMessage(content=f"heard: {text}"))
